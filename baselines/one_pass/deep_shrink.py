"""Deep Shrink ("Kohya's hires fix", 2023; no paper): while noise is high, the U-Net's deeper levels work on feature
maps of their training size.

Behind one input block the feature map is made smaller by the ratio of the image to the training size; in the decoder
it grows again where it meets the first skip connection of the full size. Blocks are numbered as in the public codes:
0 is the first convolution, 1 and 2 are the layers of the first down block, 3 is its downsampler, and so on.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from baselines.one_pass.following import FORWARDED, Moment, Now, OnePass, check_blocks, on_output, pair
from scalecrafter.patching import replaced_attribute
from scalecrafter.pipeline import training_size

RESIZES = ("bicubic", "bilinear", "nearest-exact", "area")


@dataclass(frozen=True)
class DeepShrink(OnePass):
    """Deep Shrink with the defaults of its ComfyUI node.

    Args:
        factor: by which feature maps shrink, 1 or more; None: each axis by the ratio of the image to the training size
            (at four times the area 2, the public default).
        block: input block behind which they shrink, 1 or more.
        start, end: window in which they do, as shares (0 to 1) of the noise schedule, which begins with pure noise.
        after_skip: keep the block's own skip connection at full size.
        shrinking, growing: interpolation, one of bicubic, bilinear, nearest-exact and area.

    Raises:
        ValueError: an option outside its range.
    """

    factor: float | None = None
    block: int = 3
    start: float = 0.0
    end: float = 0.35
    after_skip: bool = True
    shrinking: str = "bicubic"
    growing: str = "bicubic"

    def __post_init__(self) -> None:
        if self.factor is not None and self.factor < 1:
            raise ValueError(f"factor of Deep Shrink must be 1 or more, not {self.factor}")
        if not (0 <= self.start <= 1 and 0 <= self.end <= 1):
            raise ValueError(f"start and end of Deep Shrink must be from 0 to 1, not {self.start} and {self.end}")
        for name in ("shrinking", "growing"):
            if getattr(self, name) not in RESIZES:
                raise ValueError(f"{name} of Deep Shrink must be one of {', '.join(RESIZES)}")

    def plan(self, pipe: Any, height: int, width: int) -> Shrinking | None:
        check_blocks(pipe.unet, "Deep Shrink")
        blocks = len(input_blocks(pipe.unet))
        if not 0 < self.block < blocks:
            raise ValueError(f"block of Deep Shrink must be 1 to {blocks - 1} in this U-Net, not {self.block}")
        train_height, train_width = training_size(pipe)
        ratios = max(1.0, height / train_height), max(1.0, width / train_width)
        factors = ratios if self.factor is None else (self.factor, self.factor)
        if factors == (1, 1) or self.start >= self.end:
            return None
        return Shrinking(self, factors)


@dataclass(frozen=True)
class Shrinking:
    """The `Plan` of Deep Shrink at one size: options, and the (vertical, horizontal) factors."""

    options: DeepShrink
    factors: tuple[float, float]
    resizes = True

    def at(self, moment: Moment) -> bool | None:
        """True in the window; like the public node's, it ends at the timestep (1 - end) (T - 1)."""
        last = moment.train_timesteps - 1
        inside = (1 - self.options.end) * last <= moment.timestep <= (1 - self.options.start) * last
        return True if inside or (self.options.start == 0 and moment.timestep > last) else None

    def kind(self, moment: Moment) -> bool | None:
        return self.at(moment)

    def describe(self) -> dict[str, Any]:
        options = self.options
        names = ("block", "start", "end", "after_skip", "shrinking", "growing")
        return {"factors": list(self.factors), **{name: getattr(options, name) for name in names}}

    def attach(self, unet: Any, now: Now, changes: ExitStack) -> None:
        """Shrink behind the block, and let every layer of the decoder meet its skip connection in that one's size."""
        changes.enter_context(replaced_attribute(unet, "num_upsamplers", unet.num_upsamplers + FORWARDED))
        self._shrink_behind(input_blocks(unet)[self.options.block], now, changes)
        for block in unet.up_blocks:
            self._meet_skips(block, now, changes)

    def _shrink_behind(self, place: tuple[nn.Module, nn.Module], now: Now, changes: ExitStack) -> None:
        producer, consumer = place

        def shrunk(x: Tensor) -> Tensor:
            if now.active is None:
                return x
            rows, columns = (max(1, round(n / f)) for n, f in zip(x.shape[-2:], self.factors, strict=True))
            return resized(x, (rows, columns), self.options.shrinking)

        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return shrunk(args[0]), *args[1:]

        if self.options.after_skip:
            changes.callback(consumer.register_forward_pre_hook(hook).remove)
        else:
            on_output(producer, shrunk, changes)

    def _meet_skips(self, block: Any, now: Now, changes: ExitStack) -> None:
        """The skip connections of an up block are used from the last one to the first."""

        def enter(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if now.active is None:
                return None
            sizes = [tuple(skip.shape[-2:]) for skip in reversed(kwargs["res_hidden_states_tuple"])]
            now.active.seen[block] = sizes
            x = resized(kwargs["hidden_states"], sizes[0], self.options.growing)
            return args, {**kwargs, "hidden_states": x}

        def grown(index: int, x: Tensor) -> Tensor:
            return x if now.active is None else resized(x, now.active.seen[block][index], self.options.growing)

        changes.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)
        for index in range(1, len(block.resnets)):
            on_output(pair(block, index - 1), partial(grown, index), changes)


def resized(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize (N, C, H, W) to (rows, columns)."""
    return x if tuple(x.shape[-2:]) == size else F.interpolate(x, size, mode=mode)


def input_blocks(unet: Any) -> list[tuple[nn.Module, nn.Module]]:
    """For each input block the module that returns its feature map, and the one that works on it next."""
    producers, entries = [unet.conv_in], []
    for block in unet.down_blocks:
        entries += block.resnets
        producers += [pair(block, index) for index in range(len(block.resnets))]
        for downsampler in block.downsamplers or ():
            entries.append(downsampler)
            producers.append(downsampler)
    consumers = [*entries, *([] if unet.mid_block is None else [unet.mid_block])]
    return list(zip(producers, consumers, strict=False))
