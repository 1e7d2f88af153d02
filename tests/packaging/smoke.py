"""What an installed `scalecrafter` must be able to do, on any supported Python: python smoke.py, outside the checkout.

Enables the method on a small U-Net with the module names of Stable Diffusion 1.5, and draws its prediction inside and
outside; imports the pipelines for diffusers and the nodes for ComfyUI. Prints the version and the folder that the
package was imported from.
"""

from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel

import scalecrafter
import scalecrafter.diffusers
from scalecrafter.comfyui import NODE_CLASS_MAPPINGS

torch.manual_seed(0)
unet = UNet2DConditionModel(
    sample_size=8,
    block_out_channels=(8, 8, 8, 8),
    layers_per_block=2,
    down_block_types=("DownBlock2D",) * 4,
    up_block_types=("UpBlock2D",) * 4,
    cross_attention_dim=8,
    attention_head_dim=2,
    norm_num_groups=4,
).eval()
pipe = SimpleNamespace(unet=unet, scheduler=DDIMScheduler(), vae_scale_factor=8)
sample, text = torch.randn(2, 4, 16, 16), torch.randn(2, 3, 8)


@torch.no_grad()
def prediction() -> torch.Tensor:
    """(2, 4, 16, 16), of a latent of 128x128 pixels."""
    result: torch.Tensor = unet(sample, 900, text).sample
    return result


before = prediction()
settings = scalecrafter.Settings.load("sd15_x4")
with scalecrafter.enable(pipe, height=128, width=128, settings=settings):
    assert scalecrafter.active(pipe) == settings
    inside = prediction()
assert torch.equal(before, prediction())
assert inside.shape == before.shape
assert not torch.equal(inside, before)
assert len(scalecrafter.available_settings()) >= 12
for name in scalecrafter.diffusers.__all__:
    assert issubclass(getattr(scalecrafter.diffusers, name), DiffusionPipeline)
assert Path(scalecrafter.diffusers.__file__).with_name("pipeline.py").is_file()  # what custom_pipeline takes
assert "sd15_x4" in NODE_CLASS_MAPPINGS["ScaleCrafter"].INPUT_TYPES()["required"]["settings"][0]
print(scalecrafter.__version__, Path(scalecrafter.__file__).parents[1])
