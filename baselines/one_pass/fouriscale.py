"""FouriScale (Huang et al., ECCV 2024, arXiv 2403.12963): low-pass filtered, dilated convolutions, and guidance by a
third, less filtered prediction.

In the first part of sampling each listed convolution is dilated by the ratio of the image to the training size, after
its input lost the frequencies that a map of the training size cannot hold. A third branch of the batch, with the
prompt and a milder filter, gives the prediction that is guided; its queries and keys in self-attention are those of
the strongly filtered branch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.attention_scaling import check_projections
from baselines.method import Calls, Request
from baselines.one_pass.filtering import Filtering
from baselines.one_pass.following import OnePass, check_blocks, moment_of
from baselines.one_pass.sdxl_sizes import Enlargement, enlargement_of
from scalecrafter.convolutions import find_convolutions
from scalecrafter.pipeline import is_sdxl, training_size, vae_scale_factor
from scalecrafter.schedule import REFERENCE_STEPS
from scalecrafter.settings import expand

# Levels of the U-Net -> blocks whose convolutions are changed ("+s": with their down- or upsampler).
LAYERS = {
    4: ("down_blocks.2+s", "down_blocks.3", "mid_block", "up_blocks.0+s", "up_blocks.1+s", "up_blocks.2+s"),
    3: ("down_blocks.2", "mid_block", "up_blocks.0+s", "up_blocks.1"),
}
FLOOR = {4: 0.0, 3: 0.6}
WEAK_DIVISOR = {4: 1.0, 3: 1.5}
SHORT, LONG = (10, 30), (20, 35)  # steps of 50 at which annealing starts and the method stops


@dataclass(frozen=True)
class FouriScale(OnePass):
    """FouriScale with the constants of its public code; None stands for those of the model and size.

    Args:
        layers: blocks whose 3x3 convolutions are changed (``+s``: with their sampler), or single convolutions.
        start, stop: steps of 50 (0 to 50) at which the dilation starts to fall to 1, and from which on nothing is
            done. Four levels: 10 and 30 up to a factor of 3, else 20 and 35; three levels: 20 and 35.
        low_pass: filter the input of each convolution, upsamplers excepted.
        floor: gain of what the filters stop, 0 to 1: 0 in U-Nets of four levels, 0.6 in those of three.
        edge: frequencies added to the pass band. With 1 small maps (8 cells at a factor of 2) pass unchanged; 0
            filters them too.
        third_branch: guide the milder filtered prediction.
        share_attention: give that branch the queries and keys of the strongly filtered one.
        weak_divisor: by which that branch's dilation is smaller, 1 or more: 1 and 1.5.
        amplify_guidance: factor of the guidance scale before ``start``; the public code offers 2.4 against blur.
        size_conditions: U-Nets of three levels are told the training size that the image is a multiple of, as in the
            public code, unless the request says what they are told; else what the pipeline says.
        convolve_padded: convolve the padded map and crop afterwards, as in the paper.
        parity: the public code's slightly uneven filters, and the first of several training sizes that need the same
            padding instead of that with the closest aspect.

    Raises:
        ValueError: an option outside its range.
    """

    layers: Sequence[str] | None = None
    start: int | None = None
    stop: int | None = None
    low_pass: bool = True
    floor: float | None = None
    edge: int = 1
    third_branch: bool = True
    share_attention: bool = True
    weak_divisor: float | None = None
    amplify_guidance: float = 1.0
    size_conditions: bool = True
    convolve_padded: bool = False
    parity: bool = False

    def __post_init__(self) -> None:
        ranges = {"start": (0, REFERENCE_STEPS), "stop": (0, REFERENCE_STEPS), "floor": (0, 1), "edge": (0, math.inf)}
        ranges |= {"weak_divisor": (1, math.inf), "amplify_guidance": (0, math.inf)}
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ValueError(f"{name} of FouriScale must be from {least} to {most}, not {value}")

    def plan(self, pipe: Any, height: int, width: int) -> Filtering | None:
        levels = check_blocks(pipe.unet, "FouriScale", (3, 4))
        base = self.enlargement(pipe, height, width)
        start, stop = SHORT if levels == 4 and base.factor <= 3 else LONG
        start = start if self.start is None else self.start
        stop = stop if self.stop is None else self.stop
        if base.factor == 1 or stop == 0:
            return None
        if start > stop:
            raise ValueError(f"start of FouriScale must not be after stop, and {start} is after {stop}")
        check_projections(pipe.unet.modules())
        layers = tuple(expand(dict.fromkeys(LAYERS[levels] if self.layers is None else self.layers)))
        find_convolutions(pipe.unet, layers)
        factor = vae_scale_factor(pipe)
        conditioned = is_sdxl(pipe) and self.size_conditions and levels == 3
        return Filtering(
            layers=layers,
            base=(base.height / factor, base.width / factor),
            factor=base.factor,
            start=start,
            stop=stop,
            low_pass=self.low_pass,
            floor=FLOOR[levels] if self.floor is None else self.floor,
            edge=self.edge,
            third_branch=self.third_branch,
            share_attention=self.share_attention,
            weak_divisor=WEAK_DIVISOR[levels] if self.weak_divisor is None else self.weak_divisor,
            amplify_guidance=self.amplify_guidance,
            conditions=(base.height, base.width) if conditioned else None,
            convolve_padded=self.convolve_padded,
            parity=self.parity,
        )

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """One kind for all steps of equal cost; until the method ends a call has the third branch as well."""
        found, plan = super().calls(pipe, request), self.plan(pipe, request.height, request.width)
        if plan is None or not self.third_branch:
            return found
        acts = [plan.at(moment_of(pipe.scheduler, calls.timestep or 0.0)) is not None for calls in found]
        return [replace(calls, added=len(request.prompts) * act) for calls, act in zip(found, acts, strict=True)]

    def generate(self, pipe: Any, request: Request) -> NDArray[np.uint8]:
        own = self if request.sampler.size_condition is None else replace(self, size_conditions=False)
        return super(FouriScale, own).generate(pipe, request)

    def enlargement(self, pipe: Any, height: int, width: int) -> Enlargement:
        """The training size that the image is a multiple of: the model's own, or in U-Nets of three levels one of
        SDXL's, and the dilation before annealing.
        """
        train_height, train_width = training_size(pipe)
        if len(pipe.unet.down_blocks) == 3:
            return enlargement_of(height, width, side=train_height, first=self.parity)
        factor = max(-(-height // train_height), -(-width // train_width))
        return Enlargement(train_height, train_width, factor)
