"""FreeScale (Qiu et al., ICCV 2025): samples that are enlarged as images and sampled again, with three interventions.

In later stages the latents are blended with the noised enlarged image, the deep convolutions of the down and middle
blocks are dilated while structure is made, and self-attention fuses windows of the training size with the whole map.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from baselines.cascade.attention import ScaleFusion
from baselines.cascade.sampling import Sampling
from baselines.cascade.sdedit import SDEdit
from scalecrafter.convolutions import is_spatial
from scalecrafter.freeu import FreeU
from scalecrafter.patching import replaced_forward
from scalecrafter.pipeline import latent_size
from scalecrafter.schedule import REFERENCE_STEPS
from scalecrafter.settings import Settings

PUBLIC_FREEU = FreeU(1.1, 1.2, 0.6, 0.4, form="scalecrafter")  # SDXL's


def deep_convolutions(unet: Any) -> list[str]:
    """Names of the 3x3 convolutions at a quarter of the latent's side or less, up blocks left out: the nine that the
    paper dilates in SDXL, and those of the same scale in Stable Diffusion 1.x and 2.x.
    """
    prefixes = tuple(f"down_blocks.{index}." for index in range(2, len(unet.down_blocks)))
    names = (name.removesuffix(".base_layer") for name, module in unet.named_modules() if is_spatial(module))
    deep = (*prefixes, "mid_block.", "down_blocks.1.downsamplers.")
    return [name for name in names if name.startswith(deep)]


@dataclass(frozen=True)
class FreeScale(SDEdit):
    """`SDEdit` in RGB with the paper's three parts, each of which can be left out.

    Args:
        blend: exponent of the cosine weight of the noised enlarged image in each later call; None: not blended.
        dilate: dilate the deep convolutions (`deep_convolutions`) by the ratio to the training size.
        dilate_until: number of the paper's 50 steps after which they are not.
        fuse: fuse windowed and global self-attention.
        strided: global attention over base-sized interleaved grids ("fast mode").
        channels: filter over channels too, as the public code does.
        freeu: FreeU in all stages with the public code's factors.
    """

    size_condition: str = "base"
    space: str = "rgb"
    blend: float | None = 2.0
    dilate: bool = True
    dilate_until: int = 35
    fuse: bool = True
    strided: bool = False
    channels: bool = False
    freeu: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dilate_until <= REFERENCE_STEPS:
            raise ValueError(f"dilate_until counts the paper's steps, from 0 to 50, not {self.dilate_until}")

    def settings(self, sampling: Sampling) -> Settings | None:
        table: dict[str, tuple[float, float]] = {}
        if self.dilate and sampling.stage.index:
            first, now = sampling.stages[0].size, sampling.stage.size
            factors = float(max(1, round(now[0] / first[0]))), float(max(1, round(now[1] / first[1])))
            table = dict.fromkeys(deep_convolutions(sampling.pipe.unet), factors)
        freeu = PUBLIC_FREEU if self.freeu else None
        return Settings(table, tau=self.dilate_until if table else 0, freeu=freeu) if table or freeu else None

    def before_call(self, sampling: Sampling, latents: Tensor, t: Any) -> Tensor:
        return sampling.blended(latents, t, self.blend)

    def changed_unet(self, sampling: Sampling, t: Any) -> AbstractContextManager[Any]:
        return fused_attention(sampling, self) if self.fuse and sampling.stage.index else nullcontext()


@contextmanager
def fused_attention(sampling: Sampling, method: FreeScale) -> Iterator[None]:
    """Self-attention of one U-Net call, with windows at new places for each image."""
    pipe = sampling.pipe
    latent, base = (latent_size(pipe, stage.size) for stage in (sampling.stage, sampling.stages[0]))
    shape = (*ScaleFusion.windows(latent, base), 2)
    moves = torch.stack([torch.rand(shape, generator=generator) for generator in sampling.generators]) * 2 - 1
    fusion = ScaleFusion(latent, base, moves, method.strided, method.channels)
    attentions = [module for name, module in pipe.unet.named_modules() if name.endswith(".attn1")]
    with ExitStack() as changes:
        for attention in attentions:
            changes.enter_context(replaced_forward(attention, fusion.replacement))
        yield
