"""RectifiedHR (Yang et al., 2025): one schedule over growing sizes, with more guidance at each.

Between two sizes the clean estimate is enlarged as an image and given new noise ("noise refresh"). A refresh lowers
the latents' energy, which blurs; a larger guidance scale restores it ("energy rectification"). The U-Net is unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from baselines.cascade.engine import Cascade
from baselines.cascade.images import enlarged_images, pillow_bicubic
from baselines.cascade.parts import Part, consecutive
from baselines.cascade.sampling import Sampling
from baselines.cascade.sizes import Size, linear_sizes, side_ratio
from scalecrafter.pipeline import vae_scale_factor


@dataclass(frozen=True)
class Ladder:
    """Sizes, refreshes and guidance of one target; with N sizes, x_j = j / (N - 1).

    Args:
        count: number of sizes, N.
        refresh, refresh_power: progress at which size j ends, r + (1 - r) x_j^p.
        guidance_ratio, guidance_power: guidance scale at size j, w (1 + (ratio - 1) x_j^p).
    """

    count: int
    refresh: float
    refresh_power: float
    guidance_ratio: float
    guidance_power: float


# Area ratio up to which each holds (the geometric mean of two published ones) -> as published for 4, 8 and 16.
PUBLISHED = {32**0.5: Ladder(2, 0.6, 1, 6, 1), 128**0.5: Ladder(3, 0.8, 1, 10, 1)}
LARGEST = Ladder(3, 0.8, 0.5, 10, 0.5)


@dataclass(frozen=True)
class RectifiedHR(Cascade):
    """Consecutive parts of one schedule at sizes whose sides grow linearly; see `Ladder` for the arguments, of which
    those that are None are as published for the nearest area ratio.
    """

    refresh: float | None = None
    refresh_power: float | None = None
    guidance_ratio: float | None = None
    guidance_power: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refresh is not None and not 0 < self.refresh < 1:
            raise ValueError(f"refresh is a share of the schedule, above 0 and below 1, not {self.refresh}")

    def ladder(self, base: Size, target: Size) -> Ladder:
        """The published ladder for this enlargement, with this method's own values."""
        area = side_ratio(base, target) ** 2
        found = next((ladder for limit, ladder in PUBLISHED.items() if area <= limit), LARGEST)
        own = {name: getattr(self, name) for name in asdict(found)}
        return Ladder(**(asdict(found) | {name: value for name, value in own.items() if value is not None}))

    def options(self, pipe: Any, sizes: Sequence[Size]) -> dict[str, Any]:
        return super().options(pipe, sizes) | asdict(self.ladder(sizes[0], sizes[-1]))

    def sizes(self, pipe: Any, base: Size, target: Size) -> list[Size]:
        return linear_sizes(base, target, self.ladder(base, target).count, vae_scale_factor(pipe))

    def parts(self, pipe: Any, sizes: Sequence[Size], steps: int) -> list[Part]:
        ladder, last = self.ladder(sizes[0], sizes[-1]), len(sizes) - 1
        boundaries = [
            ladder.refresh + (1 - ladder.refresh) * (index / last) ** ladder.refresh_power for index in range(last)
        ]
        return consecutive(pipe.scheduler, steps, boundaries)

    def guidance(self, index: int, sizes: Sequence[Size], scale: float) -> float:
        if index == 0:
            return scale
        ladder = self.ladder(sizes[0], sizes[-1])
        x = index / (len(sizes) - 1)
        return scale * (1 + (ladder.guidance_ratio - 1) * x**ladder.guidance_power)

    def relay(self, sampling: Sampling, latents: Tensor, clean: Tensor) -> Tensor:
        return enlarged_images(sampling.pipe, clean, sampling.stage.size, pillow_bicubic, None)
