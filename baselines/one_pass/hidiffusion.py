"""HiDiffusion (Zhang et al., ECCV 2024, arXiv 2311.17528): feature maps of the training size, attention in windows.

RAU-Net shrinks the deeper feature maps in the first part of sampling, in two ways: a downsampler with stride 4, whose
counterpart in the decoder enlarges as much, and a pair of average pooling and bicubic enlargement within one level.
MSW-MSA splits the self-attention of an outer level into 2x2 windows, which shift from step to step.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from baselines.one_pass.attention_windows import from_windows, to_windows
from baselines.one_pass.following import FORWARDED, Moment, Now, OnePass, check_blocks, on_output, pair
from scalecrafter.convolutions import find_convolutions
from scalecrafter.patching import replaced_attribute
from scalecrafter.pipeline import training_size
from scalecrafter.schedule import REFERENCE_STEPS

SMALLEST = 1.2  # ratio of the sides to the training size, from which on the method acts
EXTREME = 4.0  # and from which on it needs both reductions
# Levels of the U-Net -> (t1, t2, aggressive) below EXTREME and above it, from the public code.
PUBLIC = {
    4: {"usual": (0.4, 0.0, 0.0), "extreme": (0.7, 0.3, 0.0)},
    3: {"usual": (0.4, 0.0, 8 / 50), "extreme": (0.7, 0.3, 0.0)},
}
POOLED_LEVEL = 1
OUTER_LEVEL = {4: 0, 3: 1}  # of the downsampler with stride 4 and of the windows, by the number of levels
SHIFTS = ("timestep", "block", "none")
Window = tuple[int, int]  # steps of 50, the end not included


@dataclass(frozen=True)
class HiDiffusion(OnePass):
    """HiDiffusion with the constants of its public code.

    Args:
        raunet: shrink feature maps.
        windows: split self-attention into windows.
        t1, t2: shares of the steps in which the first and the second reduction are on. In U-Nets of four levels the
            first is the downsampler with stride 4, in those of three levels the pooling. None: 0.4 and 0; from four
            times the training sides on 0.7 and 0.3.
        aggressive: in U-Nets of three levels the share of the steps, from the first on, in which the downsampler
            replaces the pooling. None: 8/50; from four times the training sides on 0.
        shifts: of the windows, drawn once for each timestep, as the paper says, or for each block too, as the public
            code does; or "none".
        shift_seed: of these draws.

    Raises:
        ValueError: an option outside its range.
    """

    raunet: bool = True
    windows: bool = True
    t1: float | None = None
    t2: float | None = None
    aggressive: float | None = None
    shifts: str = "timestep"
    shift_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("t1", "t2", "aggressive"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} of HiDiffusion must be from 0 to 1, not {value}")
        if self.shifts not in SHIFTS:
            raise ValueError(f"shifts of HiDiffusion must be one of {', '.join(SHIFTS)}, not {self.shifts!r}")

    def plan(self, pipe: Any, height: int, width: int) -> Reduction | None:
        levels = check_blocks(pipe.unet, "HiDiffusion", (3, 4))
        train_height, train_width = training_size(pipe)
        ratio = min(height / train_height, width / train_width)
        if ratio < SMALLEST:
            return None
        public = PUBLIC[levels]["extreme" if ratio >= EXTREME else "usual"]
        given = (self.t1, self.t2, self.aggressive)
        shares = (other if share is None else share for share, other in zip(given, public, strict=True))
        t1, t2, aggressive = (int(REFERENCE_STEPS * share + 1e-9) for share in shares)
        strided, pooled = ((0, t1), (0, t2)) if levels == 4 else ((0, max(t2, aggressive)), (aggressive, t1))
        off = (0, 0)
        found = Reduction(
            outer=OUTER_LEVEL[levels],
            strided=strided if self.raunet and strided[0] < strided[1] else off,
            pooled=pooled if self.raunet and pooled[0] < pooled[1] else off,
            shifts=self.shifts if self.windows and windowed_blocks(pipe.unet, OUTER_LEVEL[levels]) else None,
            seed=self.shift_seed,
        )
        return None if (found.strided, found.pooled, found.shifts) == (off, off, None) else found


@dataclass(frozen=True)
class Work:
    """What one call does: the downsampler with stride 4, the pooling."""

    strided: bool
    pooled: bool


@dataclass(frozen=True)
class Reduction:
    """The `Plan` of HiDiffusion at one size.

    Args:
        outer: level of the downsampler with stride 4, and of the windows.
        strided, pooled: when these are on.
        shifts: of the windows; None: no windows.
        seed: of the shifts.
    """

    outer: int
    strided: Window
    pooled: Window
    shifts: str | None
    seed: int

    @property
    def resizes(self) -> bool:
        return max(*self.strided, *self.pooled) > 0

    def at(self, moment: Moment) -> Work | None:
        strided, pooled = (start <= moment.step < end for start, end in (self.strided, self.pooled))
        return Work(strided, pooled) if strided or pooled or self.shifts is not None else None

    def kind(self, moment: Moment) -> Work | None:
        return self.at(moment)

    def describe(self) -> dict[str, Any]:
        found: dict[str, Any] = {"strided": list(self.strided), "pooled": list(self.pooled), "windows": self.shifts}
        return found if self.shifts in (None, "none") else {**found, "shift_seed": self.seed}

    def attach(self, unet: Any, now: Now, changes: ExitStack) -> None:
        if self.resizes:
            changes.enter_context(replaced_attribute(unet, "num_upsamplers", unet.num_upsamplers + FORWARDED))
            name = f"down_blocks.{self.outer}.downsamplers.0.conv"
            for conv in find_convolutions(unet, [name])[name]:
                changes.enter_context(replaced_attribute(conv, "_conv_forward", strided(conv, now)))
            self._pool(unet, now, changes)
        if self.shifts is not None:
            for name, block in windowed_blocks(unet, self.outer).items():
                split_attention(name, block, self, now, changes)

    def _pool(self, unet: Any, now: Now, changes: ExitStack) -> None:
        """Behind the first layer of the level's encoder, and back behind the last but one layer of its decoder, after
        which the skip connection of the level above follows.
        """
        up = unet.up_blocks[len(unet.up_blocks) - 1 - POOLED_LEVEL]

        def pool(x: Tensor) -> Tensor:
            if now.active is None or not now.active.does.pooled:
                return x
            now.active.seen["pooled"] = tuple(x.shape[-2:])
            return F.avg_pool2d(x, 2, ceil_mode=True)

        def enlarge(x: Tensor) -> Tensor:
            if now.active is None or not now.active.does.pooled:
                return x
            return F.interpolate(x, now.active.seen["pooled"], mode="bicubic")

        on_output(pair(unet.down_blocks[POOLED_LEVEL], 0), pool, changes)
        on_output(pair(up, len(up.resnets) - 2), enlarge, changes)


def strided(conv: nn.Conv2d, now: Now) -> Any:
    """The ``_conv_forward`` of the downsampler that shrinks by four: output j reads inputs 4 j - 2, 4 j, 4 j + 2."""
    plain = conv._conv_forward

    def conv_forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if now.active is None or not now.active.does.strided:
            return plain(x, weight, bias)
        return F.conv2d(x, weight, bias, stride=4, padding=2, dilation=2)

    return conv_forward


def windowed_blocks(unet: Any, level: int) -> dict[str, Any]:
    """Name -> attention (a transformer over a feature map) at this level; none if it has resnets only."""
    names = (f"down_blocks.{level}", f"up_blocks.{len(unet.up_blocks) - 1 - level}")
    return {
        f"{name}.attentions.{index}": attention
        for name in names
        for index, attention in enumerate(getattr(unet.get_submodule(name), "attentions", None) or ())
    }


def split_attention(name: str, attention: Any, plan: Reduction, now: Now, changes: ExitStack) -> None:
    """Let the self-attention of ``attention`` work in windows."""

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if now.active is not None:
            now.active.seen[name] = tuple(args[0].shape[-2:]), shift_of(plan, now.active.moment, name)

    def split(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if now.active is None else (to_windows(args[0], *now.active.seen[name]), *args[1:])

    def merge(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        return None if now.active is None else from_windows(output, *now.active.seen[name])

    changes.callback(attention.register_forward_pre_hook(note).remove)
    for block in attention.transformer_blocks:
        changes.callback(block.attn1.register_forward_pre_hook(split).remove)
        changes.callback(block.attn1.register_forward_hook(merge).remove)


def shift_of(plan: Reduction, moment: Moment, name: str) -> int:
    """0 to 3 quarters of a window, from the seed and the timestep alone: alike for all images and both halves."""
    if plan.shifts == "none":
        return 0
    key = f"{plan.seed} {moment.timestep:.3f}" + (f" {name}" if plan.shifts == "block" else "")
    return random.Random(key).randrange(4)
