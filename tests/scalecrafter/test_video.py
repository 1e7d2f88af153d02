"""Video models besides their images (`test_supported`): temporal convolutions, and the settings of motion models."""

import pytest
import torch

import scalecrafter
from scalecrafter import Settings
from scalecrafter.settings import expand
from tests.scalecrafter.videos import MAKERS, animatediff


@pytest.mark.parametrize("kind", ["modelscope", "stable_video"])
def test_temporal_convolutions_cannot_be_dilated(tmp_path, kind):
    pipe = MAKERS[kind](tmp_path)
    temporal = next(name for name, module in pipe.unet.named_modules() if isinstance(module, torch.nn.Conv3d))
    with pytest.raises(ValueError, match="not a 3x3 convolution"):
        scalecrafter.enable(pipe, height=64, width=64, settings=Settings({temporal: 2}, tau=50))


def test_motion_models_have_the_settings_of_their_image_models(tmp_path):
    pipe = animatediff(tmp_path)
    pipe.unet.register_to_config(cross_attention_dim=768)
    assert scalecrafter.auto_settings(pipe, 64, 64) == Settings.load("sd15_x4")
    scalecrafter.enable(pipe, height=64, width=64, settings="sd15_x16").disable()
    assert set(expand({"mid_block": 2})) <= {name for name, _ in pipe.unet.named_modules()}
