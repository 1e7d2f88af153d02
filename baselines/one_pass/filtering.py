"""What FouriScale does at one size: the layers, and the branches of a call of the U-Net."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.one_pass.following import Call, Moment, Now
from baselines.one_pass.fourier import Filter, low_passed, padded_size
from scalecrafter.batch import batch_sizes, map_batch, sample_and_timestep
from scalecrafter.convolutions import find_convolutions
from scalecrafter.guidance import HALVES
from scalecrafter.patching import replaced_attribute


@dataclass(frozen=True)
class Work:
    """What one call does.

    Args:
        factor: fractional dilation, which sets the pass band.
        strong, weak: dilations of the strongly and of the mildly filtered branch.
        guidance: factor of the guidance scale.
    """

    factor: float
    strong: int
    weak: int
    guidance: float


@dataclass(frozen=True)
class Branches:
    """Samples of a call: ``strong`` ones with the strong filter, of which the last ``weak`` are with the prompt, then
    those again with the mild filter. ``guided``: the strong ones begin with as many without the prompt.
    """

    strong: int
    weak: int
    guided: bool


@dataclass(frozen=True)
class Filtering:
    """The `Plan` of FouriScale at one size, see `FouriScale`.

    Args:
        layers: names of the convolutions.
        base: latent training size.
        factor: dilation before annealing.
        conditions: size in pixels that the U-Net is told, or None.
    """

    layers: tuple[str, ...]
    base: tuple[float, float]
    factor: int
    start: int
    stop: int
    low_pass: bool
    floor: float
    edge: int
    third_branch: bool
    share_attention: bool
    weak_divisor: float
    amplify_guidance: float
    conditions: tuple[float, float] | None
    convolve_padded: bool
    parity: bool
    resizes = False

    def at(self, moment: Moment) -> Work | None:
        """The dilation falls linearly from its full value at ``start`` to 1 at ``stop`` and is rounded up."""
        step = moment.step
        if step >= self.stop:
            return None
        left = 1.0 if step < self.start else (self.stop - step) / (self.stop - self.start)
        factor = 1 + (self.factor - 1) * left
        weak = math.ceil(max(factor / self.weak_divisor, 1))
        return Work(factor, math.ceil(factor), weak, self.amplify_guidance if step < self.start else 1.0)

    def kind(self, moment: Moment) -> tuple[int, int] | None:
        work = self.at(moment)
        return None if work is None else (work.strong, work.weak)

    def describe(self) -> dict[str, Any]:
        found = {
            "layers": list(self.layers),
            "base": list(self.base),
            "start": self.start,
            "stop": self.stop,
            "amplify_guidance": self.amplify_guidance,
            "conditions": None if self.conditions is None else list(self.conditions),
            "low_pass": None,
            "third_branch": None,
        }
        if self.low_pass:
            names = ("floor", "edge", "parity", "convolve_padded")
            found["low_pass"] = {name: getattr(self, name) for name in names}
        if self.third_branch:
            found["third_branch"] = {"share_attention": self.share_attention, "weak_divisor": self.weak_divisor}
        return found

    def attach(self, unet: Any, now: Now, changes: ExitStack) -> None:
        undo = changes.callback
        undo(unet.register_forward_pre_hook(self._split(now), with_kwargs=True).remove)
        # Before the hook that ends the call.
        undo(unet.register_forward_hook(self._join(now), prepend=True).remove)
        levels = len(unet.down_blocks)
        for name, parts in find_convolutions(unet, self.layers).items():
            base = base_of(name, self.base, levels)
            for conv in parts:
                changes.enter_context(replaced_attribute(conv, "_conv_forward", self._filtered(name, conv, base, now)))
        if self.third_branch and self.share_attention:
            for name, module in unet.named_modules():
                if name.endswith((".attn1.to_q", ".attn1.to_k")):
                    undo(module.register_forward_hook(shared(now)).remove)

    def _split(self, now: Now) -> Any:
        """The root's hook before a call: conditions, and the third branch."""

        def hook(unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            call = now.call
            if call is None:
                return None
            if self.conditions is not None:
                kwargs = with_conditions(kwargs, self.conditions)
            if call.does is not None:
                sample, _ = sample_and_timestep(args, kwargs)
                guided, batch = is_guided(call, len(sample)), len(sample)
                branches = Branches(batch, batch // 2 if guided else batch, guided)
                call.seen["branches"] = branches
                if self.third_branch:
                    args, kwargs = map_batch(
                        (args, kwargs), batch_sizes(sample), lambda x: torch.cat([x, x[-branches.weak :]])
                    )
            return args, kwargs

        return hook

    def _join(self, now: Now) -> Any:
        """The root's hook after a call: what the pipeline expects, with the prediction that is to be guided."""

        def hook(unet: Any, args: tuple[Any, ...], output: Any) -> Any:
            call = now.active
            if call is None:
                return None
            branches = call.seen["branches"]
            text = output[0][-branches.weak :]
            joined = text
            if branches.guided:
                plain = output[0][: branches.weak]
                # The pipeline computes plain + w (c - plain) from the halves plain and c.
                text = text if call.does.guidance == 1 else plain + call.does.guidance * (text - plain)
                joined = torch.cat([plain, text])
            return (joined,) if isinstance(output, tuple) else type(output)(sample=joined)

        return hook

    def _filtered(self, name: str, conv: nn.Conv2d, base: tuple[int, int], now: Now) -> Any:
        """The ``_conv_forward`` of one convolution."""
        plain, low_pass = conv._conv_forward, self.low_pass and ".upsamplers." not in name

        def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, work: Work, weak: bool) -> Tensor:
            size, spacing = padded_size((x.shape[-2], x.shape[-1]), base), work.weak if weak else work.strong
            band = Filter(
                max(work.factor / conv.stride[0], 1) if low_pass else 1, self.floor, weak, self.edge, self.parity
            )
            rows, columns = (-(-n // conv.stride[0]) for n in x.shape[-2:])
            x = low_passed(x, band, size, crop=not (self.convolve_padded and low_pass))
            side = spacing * (conv.kernel_size[0] // 2)
            return F.conv2d(x, weight, bias, conv.stride, side, spacing)[..., :rows, :columns]

        def conv_forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            call = now.active
            if call is None:
                return plain(x, weight, bias)
            strong = call.seen["branches"].strong
            parts = [convolved(x[:strong], weight, bias, call.does, weak=False)]
            if len(x) > strong:
                parts.append(convolved(x[strong:], weight, bias, call.does, weak=True))
            return torch.cat(parts)

        return conv_forward


def base_of(name: str, latent: tuple[float, float], levels: int) -> tuple[int, int]:
    """Training size of the feature map that a layer works on; an upsampler works on that of the level above."""
    kind, _, rest = name.partition(".")
    index = int(rest.partition(".")[0]) if kind != "mid_block" else levels - 1
    level = index if kind != "up_blocks" else levels - 1 - index - (".upsamplers." in name)
    return max(1, round(latent[0] / 2**level)), max(1, round(latent[1] / 2**level))


def shared(now: Now) -> Any:
    """A hook of the queries or keys: those of the mildly filtered branch are the strongly filtered branch's."""

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        if now.active is None:
            return None
        branches = now.active.seen["branches"]
        strong = output[: branches.strong]
        return torch.cat([strong, strong[-branches.weak :]])

    return hook


def is_guided(call: Call, batch: int) -> bool:
    """Whether a call holds the halves [without prompt, with prompt].

    Raises:
        ValueError: a pipeline whose guidance is not known to be that.
    """
    from diffusers import DiffusionPipeline

    caller = call.caller
    known = not isinstance(caller.pipe, DiffusionPipeline) or type(caller.pipe).__name__ in HALVES
    if caller.modular or not known or (caller.guided and batch % 2):
        raise ValueError(
            "FouriScale needs classifier-free guidance with both halves in one call, or no guidance, and "
            f"{type(caller.pipe).__name__} is not known to have it: use a pipeline of Stable Diffusion or SDXL"
        )
    return caller.guided


def with_conditions(kwargs: dict[str, Any], size: tuple[float, float]) -> dict[str, Any]:
    """The arguments of a call with this original and target size in pixels, and no crop."""
    added = dict(kwargs["added_cond_kwargs"])
    ids = added["time_ids"]
    told = torch.tensor([*size, 0.0, 0.0, *size], dtype=ids.dtype, device=ids.device)
    return {**kwargs, "added_cond_kwargs": {**added, "time_ids": told.expand(len(ids), -1)}}
