"""The contract of every method in the benchmark: `Method.generate(pipe, request)` returns images for prompts.

Methods that only change the U-Net implement `UNetMethod.enable` and inherit the sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from baselines.sampler import Sampler, sampled_as
from scalecrafter.enable import check_pipeline
from scalecrafter.pipeline import latent_size, sampling_timesteps


@dataclass(frozen=True)
class Request:
    """Images to generate: one seed (0 to 2^63 - 1) per prompt, size in pixels. ValueError if their numbers differ."""

    prompts: Sequence[str]
    seeds: Sequence[int]
    height: int
    width: int
    sampler: Sampler = Sampler()

    def __post_init__(self) -> None:
        if not self.prompts or len(self.prompts) != len(self.seeds):
            raise ValueError(f"one seed per prompt: got {len(self.prompts)} prompts and {len(self.seeds)} seeds")

    @property
    def samples(self) -> int:
        """Samples in one U-Net call: the prompts, twice with guidance."""
        return len(self.prompts) * (2 if self.sampler.guided else 1)


@dataclass(frozen=True)
class Calls:
    """U-Net calls of one kind made for a request, used to estimate cost.

    Args:
        times: number of calls.
        samples: samples per call, with both halves of guidance.
        height, width: latent size.
        timestep: timestep of a call made with the method enabled; None: a call of the plain U-Net.
        differentiated: the decoded prediction is differentiated with respect to the latent as well: "kept", or
            "recomputed" with `baselines.clean_images.recomputed`.
        added: samples by which the method, enabled, enlarges each call or that it calls the U-Net with once more.
    """

    times: int
    samples: int
    height: int
    width: int
    timestep: float | None = None
    differentiated: str | None = None
    added: int = 0


class Method(Protocol):
    """Anything that generates images for a `Request`. Cost is estimated for methods with `UNetMethod.calls`."""

    def generate(self, pipe: Any, request: Request) -> NDArray[np.uint8]:
        """(N, height, width, 3) uint8 images, the i-th determined by prompt and seed i.

        Its companions in the batch do not matter: batches of one size give identical images. Batches of other sizes
        make the libraries sum in another order, which moves single values by one level of 255 on a CPU in float32.
        """
        ...

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        """Everything about the method at this size that affects pixels, as plain values; no weights are loaded.

        A Path stands for the contents of that folder of weights; the benchmark replaces it by a digest.

        Raises:
            ValueError: the method does not support this pipeline or size.
        """
        ...


class UNetMethod:
    """A method that changes the U-Net of a stock pipeline; subclasses implement `enable`."""

    def enable(self, pipe: Any, *, height: int, width: int) -> AbstractContextManager[Any]:
        """Enable the method; leaving the context restores the pipeline."""
        raise NotImplementedError

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        """See `Method.describe`; here nothing but the checks."""
        check_pipeline(pipe, height, width)
        return {}

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """U-Net calls made by `generate`; by default one call at full size per step, all alike."""
        timesteps = sampling_timesteps(pipe, request.sampler.steps)
        latent = latent_size(pipe, (request.height, request.width))
        return [Calls(len(timesteps), request.samples, *latent, timesteps[0])]

    def generate(self, pipe: Any, request: Request) -> NDArray[np.uint8]:
        """Sample from the stock pipeline while the method is enabled, with one CPU generator per image.

        Raises:
            ValueError: the model returned NaN or infinity.
        """
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in request.seeds]
        progress_bar_config = getattr(pipe, "_progress_bar_config", None)
        pipe.set_progress_bar_config(disable=True)
        try:
            with sampled_as(pipe, request.sampler), self.enable(pipe, height=request.height, width=request.width):
                images = pipe(
                    list(request.prompts),
                    height=request.height,
                    width=request.width,
                    generator=generators,
                    output_type="np",
                    **request.sampler.arguments(pipe, len(request.prompts)),
                ).images
        finally:
            if progress_bar_config is None:
                del pipe._progress_bar_config
            else:
                pipe._progress_bar_config = progress_bar_config
        return as_uint8(images)


def as_uint8(images: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Images in [0, 1] as levels of 255; see `check_finite`."""
    check_finite(images)
    return np.rint(images * 255).astype(np.uint8)


def check_finite(values: Any) -> None:
    """ValueError for an array or tensor with NaN or infinity."""
    if not (torch.isfinite(values) if isinstance(values, torch.Tensor) else np.isfinite(values)).all():
        raise ValueError("the model returned NaN or infinity: use a wider dtype (float32, or bfloat16 for the U-Net)")
