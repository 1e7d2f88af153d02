"""SyncDiffusion (Lee et al., 2023): MultiDiffusion whose windows are first pulled towards one of them, the anchor.

In each of the first steps, every window's latent takes a gradient step that brings its predicted clean image closer to
the anchor's in a perceptual distance. Then the windows are denoised and averaged as in MultiDiffusion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from baselines.cascade.images import decode, precise
from baselines.clean_images import clean_latent, recomputed, window_gradient
from baselines.lpips import Distance, lpips_vgg
from baselines.method import Calls, Request
from baselines.multidiffusion import MultiDiffusion, as_output, check_affine, check_inputs, window_size
from baselines.windows import Windows
from scalecrafter.patching import Forward, replaced_attribute, replaced_forward
from scalecrafter.pipeline import sampling_timesteps
from scalecrafter.schedule import timestep_value

KEPT = 96 * 96  # latent pixels of a window: 768x768 pixels with a factor of 8


@dataclass(frozen=True)
class SyncDiffusion(MultiDiffusion):
    """MultiDiffusion with synchronised windows. Requires DDIM, whose step depends only on the latent passed to it.

    Args:
        weight: of the gradient step, multiplied by ``decay`` to the power of the step's index.
        sync_steps: number of first steps in which the windows are synchronised.
        anchor: the "middle" (as in the paper) or the "first" window.
        distance: perceptual distance; None: LPIPS with VGG features.
        recompute: run blocks again instead of keeping what they compute, for less memory and more time; None: in
            windows of more latent pixels than `KEPT`.
    """

    weight: float = 20.0
    decay: float = 0.95
    sync_steps: int = 50
    anchor: str = "middle"
    distance: Distance | None = field(default=None, compare=False)
    recompute: bool | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.anchor not in ("middle", "first"):
            raise ValueError(f"anchor must be middle or first, not {self.anchor!r}")
        if self.weight < 0 or not 0 <= self.decay <= 1 or self.sync_steps < 0:
            raise ValueError("weight and sync_steps must be at least 0, and decay from 0 to 1")

    def check_scheduler(self, pipe: Any) -> None:
        """ValueError unless the scheduler is DDIM."""
        if type(pipe.scheduler).__name__ != "DDIMScheduler":
            raise ValueError(
                f"SyncDiffusion is defined for DDIM, not for {type(pipe.scheduler).__name__}: "
                "pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)"
            )

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        self.check_scheduler(pipe)
        distance = self.distance
        name = "lpips_vgg" if distance is None else getattr(distance, "name", type(distance).__name__)
        return super().describe(pipe, height, width) | {"distance": name}

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """In synchronised steps the anchor once, and every other window with its gradient and then without."""
        count = len(self.windows(pipe, request.height, request.width))
        steps = len(sampling_timesteps(pipe, request.sampler.steps))
        synchronised = sum(self.weight_at(index) > 0 for index in range(steps)) if count > 1 else 0
        calls_for = partial(self.calls_for, pipe=pipe, request=request)
        calls = calls_for(count, times=steps - synchronised) if synchronised < steps else []
        if synchronised:
            calls += calls_for(1, times=synchronised)
            kind = "recomputed" if self.recomputes(self.windows(pipe, request.height, request.width)) else "kept"
            once = Calls(synchronised * (count - 1), request.samples, *window_size(pipe), differentiated=kind)
            calls += [once, *calls_for(count - 1, times=synchronised)]
        return calls

    def recomputes(self, windows: Windows) -> bool:
        """Whether the gradients of these windows are computed with less memory and more time."""
        return windows.height * windows.width > KEPT if self.recompute is None else self.recompute

    def weight_at(self, index: int) -> float:
        """Weight of the gradient step in sampling step ``index``."""
        return self.weight * self.decay**index if index < self.sync_steps else 0.0

    @contextmanager
    def enable(self, pipe: Any, *, height: int, width: int) -> Iterator[None]:
        check_affine(pipe)
        self.check_scheduler(pipe)
        distance, windows = self.distance or lpips_vgg(pipe.unet.device), self.windows(pipe, height, width)
        moved: list[Tensor] = []  # the synchronised latent of the current step

        def replacement(plain: Forward) -> Forward:
            return partial(self.synchronised_call, plain, pipe, windows, distance, moved)

        step = step_from(pipe.scheduler.step, moved)
        with replaced_forward(pipe.unet, replacement), replaced_attribute(pipe.scheduler, "step", step):
            yield

    def synchronised_call(
        self,
        plain: Forward,
        pipe: Any,
        windows: Windows,
        distance: Distance,
        moved: list[Tensor],
        sample: Tensor,
        timestep: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """The U-Net's forward: pull the windows towards the anchor, then predict and average."""
        weight = self.weight_at(step_index(pipe.scheduler, timestep))
        if weight == 0 or len(windows) == 1:
            return self.call(plain, pipe, windows, sample, timestep, *args, **kwargs)
        check_inputs(windows, sample, kwargs)
        parts = [windows.crop(sample, i) for i in range(len(windows))]
        anchor = len(windows) // 2 if self.anchor == "middle" else 0
        others = [i for i in range(len(windows)) if i != anchor]
        predictions: dict[int, Tensor] = {}
        predict = partial(self.predict, plain, pipe, windows, args=(timestep, *args), kwargs=kwargs)
        # The anchor is its own target: it does not move, so one prediction serves both purposes.
        (predictions[anchor],) = predict([parts[anchor]], indices=[anchor])
        with precise(pipe), recomputed(pipe) if self.recomputes(windows) else nullcontext():
            target = decode(pipe, clean_latent(pipe, parts[anchor], predictions[anchor], timestep)).float()
            for i in others:
                one = partial(predict_window, predict, i)
                latent, halves = parts[i][: len(target)], len(parts[i]) // len(target)
                gradient = window_gradient(
                    pipe, one, lambda images: distance(images, target), latent, halves, timestep
                )
                parts[i] = parts[i] - (weight * gradient).to(latent).repeat(halves, 1, 1, 1)
        for i, prediction in zip(others, predict([parts[i] for i in others], indices=others), strict=True):
            predictions[i] = prediction
        latents = [part[: len(target)] for part in parts]
        moved[:] = [windows.average(latents)]
        return as_output(windows.average([predictions[i] for i in range(len(windows))]), kwargs)


def predict_window(predict: Callable[..., list[Tensor]], index: int, pair: Tensor) -> Tensor:
    """The prediction of one window."""
    return predict([pair], indices=[index])[0]


def step_index(scheduler: Any, timestep: Any) -> int:
    """Index of the sampling step with this timestep."""
    return int((scheduler.timesteps == timestep_value(timestep)).nonzero()[0].item())


def step_from(plain: Callable[..., Any], moved: list[Tensor]) -> Callable[..., Any]:
    """A scheduler step that starts from the latent in ``moved``, if there is one, instead of the pipeline's."""

    def step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        return plain(model_output, timestep, moved.pop() if moved else sample, *args, **kwargs)

    return step
