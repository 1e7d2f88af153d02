"""MegaFusion (Wu et al., WACV 2025): one schedule over growing sizes ("truncate and relay").

Two optional parts: at larger sizes the same noise hides less, so the schedule's signal-to-noise ratio is divided by
the area ratio; and the convolutions of the middle block are dilated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from baselines.cascade.engine import Cascade
from baselines.cascade.images import enlarged_images, pillow_bicubic
from baselines.cascade.parts import Part, consecutive
from baselines.cascade.sampling import Sampling
from baselines.cascade.sizes import Size, linear_sizes, side_ratio
from scalecrafter.pipeline import is_sdxl, vae_scale_factor
from scalecrafter.settings import Settings, expand


@dataclass(frozen=True)
class MegaFusion(Cascade):
    """Consecutive parts of one schedule at sizes whose sides grow linearly, by default 2 with SDXL and 3 otherwise.

    Args:
        truncate: progress at which the training size ends; the other sizes share the rest equally.
        reschedule: divide the signal-to-noise ratio of the larger sizes by their area ratio to the training size.
        dilate: dilate the 3x3 convolutions of the middle block by 2 at the larger sizes.
    """

    truncate: float = 0.8
    reschedule: bool = False
    dilate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.truncate < 1:
            raise ValueError(f"truncate is a share of the schedule, above 0 and below 1, not {self.truncate}")

    def sizes(self, pipe: Any, base: Size, target: Size) -> list[Size]:
        return linear_sizes(base, target, self.count or (2 if is_sdxl(pipe) else 3), vae_scale_factor(pipe))

    def parts(self, pipe: Any, sizes: Sequence[Size], steps: int) -> list[Part]:
        later = len(sizes) - 1
        boundaries = [self.truncate + (1 - self.truncate) * index / later for index in range(later)]
        parts = consecutive(pipe.scheduler, steps, boundaries)
        if not self.reschedule:
            return parts
        ratios = [side_ratio(sizes[0], size) ** 2 for size in sizes]
        return [replace(part, noise_ratio=ratio) for part, ratio in zip(parts, ratios, strict=True)]

    def settings(self, sampling: Sampling) -> Settings | None:
        return Settings(expand({"mid_block": 2}), tau=50) if self.dilate and sampling.stage.index else None

    def relay(self, sampling: Sampling, latents: Tensor, clean: Tensor) -> Tensor:
        return enlarged_images(sampling.pipe, clean, sampling.stage.size, pillow_bicubic, sampling.generators)
