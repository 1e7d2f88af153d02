"""SDEdit (Meng et al., 2022) from the training size upwards: enlarge the sample, add noise, denoise it again.

In latent space this is the tuning-free path of Self-Cascade (Guo et al., ECCV 2024); in RGB it is FreeScale (Qiu et
al., ICCV 2025) without its three parts. It changes nothing in the U-Net: what other cascades add has to beat it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from baselines.cascade.engine import Cascade
from baselines.cascade.images import bicubic, enlarged_images, enlarged_latents
from baselines.cascade.parts import Part, restarts
from baselines.cascade.sampling import Sampling
from baselines.cascade.sizes import Size, doublings, geometric_sizes
from scalecrafter.pipeline import vae_scale_factor

SPACES = ("latent", "rgb")


@dataclass(frozen=True)
class SDEdit(Cascade):
    """Samples of the training size, enlarged and sampled again from some noise level on; by default sides grow by
    about two from one size to the next.

    Args:
        space: enlarge latents, or decoded images ("rgb"), which are encoded again.
        skip: share of the schedule that later stages skip, 0 (they start from noise) to below 1.
    """

    size_condition: str = "target"
    space: str = "latent"
    skip: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.space not in SPACES:
            raise ValueError(f"space must be latent or rgb, not {self.space!r}")
        if not 0 <= self.skip < 1:
            raise ValueError(f"skip is a share of the schedule, from 0 to below 1, not {self.skip}")

    def sizes(self, pipe: Any, base: Size, target: Size) -> list[Size]:
        count = self.count or doublings(base, target) + 1
        return geometric_sizes(base, target, count, vae_scale_factor(pipe))

    def parts(self, pipe: Any, sizes: Sequence[Size], steps: int) -> list[Part]:
        return restarts(pipe.scheduler, steps, self.skip, len(sizes))

    def relay(self, sampling: Sampling, latents: Tensor, clean: Tensor) -> Tensor:
        if self.space == "latent":
            return enlarged_latents(sampling.pipe, latents, sampling.stage.size)
        return enlarged_images(sampling.pipe, latents, sampling.stage.size, bicubic, sampling.generators)
