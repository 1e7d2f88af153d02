"""FreCaS (Zhang et al., ICLR 2025): a schedule that continues at each larger size from the noise level where details
of that size appear, with stronger guidance of high frequencies and the smaller size's cross-attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.cascade.attention import at_level, attention_map, level_of
from baselines.cascade.engine import Cascade
from baselines.cascade.images import enlarged_images, nearest
from baselines.cascade.parts import Listed, Part
from baselines.cascade.sampling import Sampling
from baselines.cascade.sizes import Size, doublings, geometric_sizes
from scalecrafter.patching import Forward, replaced_forward
from scalecrafter.pipeline import is_sdxl, latent_size, vae_scale_factor


@dataclass(frozen=True)
class Plan:
    """Published values for one family and number of sizes.

    Args:
        ends: timestep of a thousand at which each size ends.
        calls: U-Net calls of each size, of 50.
        gamma: exponent of the ratio of sides by which the signal-to-noise ratio grows from one size to the next.
        guidance_ratio: guidance scale of high frequencies over that of low ones.
        map_weight: weight of the smaller size's cross-attention.
    """

    ends: tuple[int, ...]
    calls: tuple[int, ...]
    gamma: float
    guidance_ratio: float
    map_weight: float


# Is the model SDXL, number of sizes -> plan.
PUBLISHED = {
    (False, 2): Plan((100, 0), (40, 10), 3.0, 45 / 7.5, 0.6),
    (False, 3): Plan((200, 200, 0), (30, 10, 10), 3.0, 35 / 7.5, 0.4),
    (True, 2): Plan((200, 0), (40, 10), 1.5, 35 / 7.5, 0.6),
    (True, 3): Plan((400, 200, 0), (30, 5, 15), 2.0, 35 / 7.5, 0.6),
}


def next_start(alphas_cumprod: Tensor, end: int, ratio: float) -> int:
    """The first timestep with at most the signal-to-noise ratio of ``end`` times ``ratio``."""
    alpha = float(alphas_cumprod[end])
    wanted = ratio * alpha / (1 + (ratio - 1) * alpha)
    return min(int((alphas_cumprod > wanted).sum()), len(alphas_cumprod) - 1)


def evenly(start: int, end: int, count: int) -> tuple[int, ...]:
    """``count`` timesteps from ``start`` to ``end``, both included, rounded down, each once."""
    return tuple(dict.fromkeys(int(t) for t in np.linspace(start, end, count)))


def shared_calls(calls: Sequence[int], steps: int) -> list[int]:
    """``steps`` calls in these proportions, at least one each; ValueError if there are too few."""
    if steps < len(calls):
        raise ValueError(f"this method samples {len(calls)} sizes and needs at least {len(calls)} steps, not {steps}")
    ends, total = [0], sum(calls)
    for index in range(1, len(calls) + 1):
        share = steps * sum(calls[:index]) // total
        ends.append(min(max(share, ends[-1] + 1), steps - len(calls) + index))
    return [later - earlier for earlier, later in zip(ends, ends[1:], strict=False)]


def lowered(x: Tensor, size: Size) -> Tensor:
    """The low frequencies of (N, C, rows, columns): resized to ``size`` and back, bilinear."""
    small = functional.interpolate(x, size, mode="bilinear", align_corners=False)
    return functional.interpolate(small, x.shape[-2:], mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class FreCaS(Cascade):
    """Listed timesteps at sizes whose sides double; see `Plan` for the arguments, of which those that are None are as
    published for the family (SDXL or another) and number of sizes, 2 or 3.

    Args:
        guidance_ratio: 1 for plain guidance.
        map_weight: 0 for plain cross-attention.
    """

    size_condition: str = "base"
    ends: Sequence[int] | None = None
    calls_of_50: Sequence[int] | None = None
    gamma: float | None = None
    guidance_ratio: float | None = None
    map_weight: float | None = None

    def plan(self, pipe: Any, count: int) -> Plan:
        """The published plan with this method's own values; ValueError if there is none for ``count`` sizes."""
        own: dict[str, Any] = {name: getattr(self, name) for name in ("gamma", "guidance_ratio", "map_weight")}
        own |= {"ends": self.ends and tuple(self.ends), "calls": self.calls_of_50 and tuple(self.calls_of_50)}
        published = PUBLISHED[is_sdxl(pipe), min(max(count, 2), 3)]
        plan = Plan(**(asdict(published) | {name: value for name, value in own.items() if value is not None}))
        if count > 1 and not len(plan.ends) == len(plan.calls) == count:
            raise ValueError(
                f"FreCaS has no published plan for {count} sizes: give count=2 or 3, or ends and calls_of_50 with "
                f"{count} values each"
            )
        return plan

    def options(self, pipe: Any, sizes: Sequence[Size]) -> dict[str, Any]:
        plan = asdict(self.plan(pipe, len(sizes)))
        resolved = {"calls_of_50": list(plan.pop("calls")), "ends": list(plan.pop("ends"))}
        return super().options(pipe, sizes) | plan | resolved

    def sizes(self, pipe: Any, base: Size, target: Size) -> list[Size]:
        count = self.count or doublings(base, target) + 1
        return geometric_sizes(base, target, count, vae_scale_factor(pipe))

    def parts(self, pipe: Any, sizes: Sequence[Size], steps: int) -> Sequence[Part | Listed]:
        if len(sizes) == 1:
            return [Part(steps)]
        plan, alphas = self.plan(pipe, len(sizes)), pipe.scheduler.alphas_cumprod
        thousandth = len(alphas) / 1000
        ends = [int(end * thousandth) for end in plan.ends]
        starts = [len(alphas) - 1]
        for end, small, large in zip(ends, sizes, sizes[1:], strict=False):
            growth = max(large[0] / small[0], large[1] / small[1])
            starts.append(next_start(alphas, end, growth**-plan.gamma))
        counts = shared_calls(plan.calls, steps)
        return [Listed(evenly(*values)) for values in zip(starts, ends, counts, strict=True)]

    def relay(self, sampling: Sampling, latents: Tensor, clean: Tensor) -> Tensor:
        return enlarged_images(sampling.pipe, clean, sampling.stage.size, nearest, sampling.generators)

    def guide(self, sampling: Sampling, uncond: Tensor, cond: Tensor) -> Tensor:
        """Guidance with a scale of its own for what the smaller size cannot hold (frequency-aware guidance)."""
        plain, index = super().guide(sampling, uncond, cond), sampling.stage.index
        extra = (self.plan(sampling.pipe, len(sampling.stages)).guidance_ratio - 1) * sampling.stage.guidance_scale
        if index == 0 or extra == 0:
            return plain
        direction = cond - uncond
        smaller = latent_size(sampling.pipe, sampling.stages[index - 1].size)
        return plain + extra * (direction - lowered(direction, smaller))

    def changed_unet(self, sampling: Sampling, t: Any) -> AbstractContextManager[Any]:
        weight = self.plan(sampling.pipe, len(sampling.stages)).map_weight
        is_last = sampling.stage.index == len(sampling.stages) - 1
        collects = not is_last and bool(t == sampling.trajectory.timesteps[-1])
        if weight == 0 or not (collects or sampling.stage.index):
            return nullcontext()
        return reused_maps(sampling, weight, collects)


@dataclass
class CrossAttention:
    """Cross-attention of the layers in one call.

    Args:
        latent: (rows, columns) of the latent.
        maps: (N, tokens of the prompt, rows, columns) attention of the smaller size, or None.
        weight: of ``maps`` in the output.
        collects: whether to keep this call's own attention.
    """

    latent: Size
    maps: Tensor | None
    weight: float
    collects: bool
    found: dict[Size, list[Tensor]] = field(default_factory=dict)
    resized: dict[Size, Tensor] = field(default_factory=dict)

    def map_at(self, size: Size) -> Tensor:
        """(N, rows x columns, tokens of the prompt) of ``maps`` at a size."""
        assert self.maps is not None
        if size not in self.resized:
            resized = functional.interpolate(self.maps, size, mode="bilinear", align_corners=False)
            self.resized[size] = resized.flatten(2).transpose(1, 2)
        return self.resized[size]

    def call(self, layer: Any, plain: Forward, x: Tensor, encoder_hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """The forward of a cross-attention: (1 - w) attention + w maps V. The output layer is affine, so this is the
        same mean of its outputs.
        """
        output: Tensor = plain(x, encoder_hidden_states=encoder_hidden_states, **kwargs)
        size = at_level(self.latent, level_of(self.latent, x.shape[1]))
        if self.collects:
            own = attention_map(layer, layer.to_q(x), layer.to_k(encoder_hidden_states))
            self.found.setdefault(size, []).append(own.transpose(1, 2).unflatten(2, size))
        if self.maps is None:
            return output
        values = self.map_at(size).to(x.dtype) @ layer.to_v(encoder_hidden_states)
        for module in layer.to_out:
            values = module(values)
        return (1 - self.weight) * output + self.weight * values / layer.rescale_output_factor

    def collected(self) -> Tensor:
        """Mean over the layers of each size, then over sizes, all at the largest."""
        largest = max(self.found)
        means = [torch.stack(maps).mean(0) for maps in self.found.values()]
        resized = [functional.interpolate(m, largest, mode="bilinear", align_corners=False) for m in means]
        return torch.stack(resized).mean(0)


@contextmanager
def reused_maps(sampling: Sampling, weight: float, collects: bool) -> Iterator[None]:
    """One U-Net call that mixes the smaller size's cross-attention in, and keeps its own for the next size."""
    memory = sampling.memory
    maps = memory.get("maps") if sampling.stage.index else None
    latent = latent_size(sampling.pipe, sampling.stage.size)
    attention = CrossAttention(latent, maps, weight, collects)
    layers: list[nn.Module] = [m for name, m in sampling.pipe.unet.named_modules() if name.endswith(".attn2")]
    with ExitStack() as changes:
        for layer in layers:

            def replacement(plain: Forward, layer: Any = layer) -> Forward:
                def forward(x: Tensor, encoder_hidden_states: Tensor, **kwargs: Any) -> Tensor:
                    return attention.call(layer, plain, x, encoder_hidden_states, **kwargs)

                return forward

            changes.enter_context(replaced_forward(layer, replacement))
        yield
    if collects:
        memory["maps"] = attention.collected()
