"""FreeU (Si et al., 2023) in two forms: that of diffusers and that of ScaleCrafter's public code.

Both amplify half of the backbone's channels and attenuate the low frequencies of the skip connection before each
resnet of the up blocks. diffusers acts on the first two blocks; the public code selects resnets by the number of
backbone channels, which differ from those blocks in Stable Diffusion 1.x and 2.x.
"""

from __future__ import annotations

from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import torch
from torch import Tensor

from scalecrafter.checks import is_number

FORMS = ("diffusers", "scalecrafter")
Amplification = tuple[int, float, float]  # of a resnet's input: backbone channels, b, s


@dataclass(frozen=True)
class FreeU:
    """FreeU (Si et al. 2023) while the method is enabled; 1 leaves a part as it is.

    Public values: SD 1.5 b 1.2, 1.4, s 0.9, 0.2; SD 2.1 b 1.1, 1.2, s 0.9, 0.2; SDXL b 1.1, 1.2, s 0.6, 0.4.

    Args:
        b1: factor of half of the backbone's channels in the deepest stage, at least 0.
        b2: the same in the next stage.
        s1: factor of the low frequencies of the skip connections in the deepest stage, at least 0.
        s2: the same in the next stage.
        form: which resnets are a stage: "diffusers" or "scalecrafter" (the public code of ScaleCrafter).

    Raises:
        ValueError: a negative factor, or an unknown form.
    """

    b1: float
    b2: float
    s1: float
    s2: float
    form: str = "diffusers"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"freeu.form must be one of {', '.join(FORMS)}, not {short(self.form)}")
        for name in ("b1", "b2", "s1", "s2"):
            value = getattr(self, name)
            if not is_number(value) or value < 0:
                raise ValueError(f"freeu.{name} must be a number of at least 0, not {short(value)}")


def freeu_plan(unet: Any, freeu: FreeU) -> dict[str, Amplification]:
    """Name of each resnet that FreeU acts on -> what is done to its input."""
    stages = ((freeu.b1, freeu.s1), (freeu.b2, freeu.s2))
    widths = sorted(set(unet.config.block_out_channels), reverse=True)[:2]
    plan, below = {}, unet.config.block_out_channels[-1]
    for index, block in enumerate(unet.up_blocks):
        for number, resnet in enumerate(block.resnets):
            if freeu.form == "diffusers":
                stage = index
            else:
                stage = widths.index(below) if below in widths else len(stages)
            if stage < len(stages):
                plan[f"up_blocks.{index}.resnets.{number}"] = (below, *stages[stage])
            below = resnet.out_channels
    return plan


def amplified(x: Tensor, below: int, b: float, s: float) -> Tensor:
    """The input of a resnet, (N, C, H, W) with the backbone's ``below`` channels before the skip connection's: half of
    the backbone times b, the low frequencies of the skip connection times s.
    """
    from diffusers.utils.torch_utils import fourier_filter

    strong, plain, skip = x.split([below // 2, below - below // 2, x.shape[1] - below], dim=1)
    return torch.cat([strong * b, plain, fourier_filter(skip, threshold=1, scale=s)], dim=1)
