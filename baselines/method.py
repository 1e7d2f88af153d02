"""The contract of everything that the benchmark compares: `Method.generate(pipe, request)`, pictures from prompts.

A method that only changes the U-Net says how it is switched on and inherits the sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from scalecrafter.enable import check_pipeline
from scalecrafter.pipeline import pixels_per_cell, sampling_timesteps


@dataclass(frozen=True)
class Sampler:
    """How the pipeline samples; ``eta`` is DDIM's (0 deterministic, 1 as noisy as DDPM). ValueError if steps < 1."""

    steps: int = 50
    guidance_scale: float = 7.5
    eta: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"sampling needs at least 1 step, not {self.steps}")


@dataclass(frozen=True)
class Request:
    """What to draw: one seed (0 to 2^63 - 1) for each prompt, size in pixels. ValueError if their numbers differ."""

    prompts: Sequence[str]
    seeds: Sequence[int]
    height: int
    width: int
    sampler: Sampler = Sampler()

    def __post_init__(self) -> None:
        if not self.prompts or len(self.prompts) != len(self.seeds):
            raise ValueError(f"one seed for each prompt: {len(self.prompts)} prompts and {len(self.seeds)} seeds")

    @property
    def samples(self) -> int:
        """In one U-Net call: prompts, each twice where there is guidance."""
        return len(self.prompts) * (2 if self.sampler.guidance_scale > 1 else 1)


@dataclass(frozen=True)
class Calls:
    """U-Net calls of one kind that drawing a request takes, for whoever wants to know before.

    Args:
        times: how many of them.
        samples: in each call, guidance halves counted.
        height, width: of the latent, in cells.
        timestep: at which the method is switched on; None: the call is one of the plain U-Net.
        differentiated: with the gradient of its decoded prediction by its latent.
    """

    times: int
    samples: int
    height: int
    width: int
    timestep: float | None = None
    differentiated: bool = False


class Method(Protocol):
    """Anything that draws ``request.prompts``. A method with ``calls`` as `UNetMethod` has it can be planned."""

    def generate(self, pipe: Any, request: Request) -> NDArray[np.uint8]:
        """(N, height, width, 3) uint8 pictures, the i-th from ``request.seeds[i]`` alone."""
        ...

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        """Everything about the method at this size that changes pixels, as plain values; checks that it can work."""
        ...


class UNetMethod:
    """A method that acts on the U-Net of a stock pipeline: subclasses implement `enable`."""

    def enable(self, pipe: Any, *, height: int, width: int) -> AbstractContextManager[Any]:
        """Switch the method on; leaving the context restores the pipeline."""
        raise NotImplementedError

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        check_pipeline(pipe, height, width)
        return {}

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """The U-Net calls that `generate` will make. Here every step is alike, a call at the whole size."""
        timesteps, cell = sampling_timesteps(pipe, request.sampler.steps), pixels_per_cell(pipe)
        size = request.height // cell, request.width // cell
        return [Calls(len(timesteps), request.samples, *size, timesteps[0])]

    def generate(self, pipe: Any, request: Request) -> NDArray[np.uint8]:
        """Sample with the stock pipeline while the method is enabled.

        Each picture has a CPU generator of its own, so it does not depend on what else is in the batch.
        """
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in request.seeds]
        quiet = getattr(pipe, "_progress_bar_config", None)
        pipe.set_progress_bar_config(disable=True)
        try:
            with self.enable(pipe, height=request.height, width=request.width):
                images = pipe(
                    list(request.prompts),
                    height=request.height,
                    width=request.width,
                    num_inference_steps=request.sampler.steps,
                    guidance_scale=request.sampler.guidance_scale,
                    eta=request.sampler.eta,
                    generator=generators,
                    output_type="np",
                ).images
        finally:
            if quiet is None:
                del pipe._progress_bar_config
            else:
                pipe._progress_bar_config = quiet
        if not np.isfinite(images).all():
            raise ValueError(
                "the model returned NaN or infinity: use a wider dtype (float32, or bfloat16 for the U-Net)"
            )
        return np.rint(images * 255).astype(np.uint8)
