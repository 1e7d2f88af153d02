"""SyncDiffusion (Lee et al., 2023): MultiDiffusion whose windows are first pulled towards one of them, the anchor.

In each of the first steps, every window's latent takes a gradient step that brings its predicted clean image closer to
the anchor's in a perceptual distance. Then the windows are denoised and averaged as in MultiDiffusion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from baselines.lpips import Distance, lpips_vgg
from baselines.method import Calls, Request
from baselines.multidiffusion import MultiDiffusion, as_output, check_affine, check_inputs
from baselines.windows import Windows
from scalecrafter.patching import Forward, replaced_attribute, replaced_forward
from scalecrafter.pipeline import sampling_timesteps
from scalecrafter.schedule import timestep_value


@dataclass(frozen=True)
class SyncDiffusion(MultiDiffusion):
    """MultiDiffusion with synchronised windows. Requires DDIM, whose step depends only on the latent passed to it.

    Args:
        weight: of the gradient step, multiplied by ``decay`` to the power of the step's index.
        sync_steps: number of first steps in which the windows are synchronised.
        anchor: the "middle" (as in the paper) or the "first" window.
        distance: perceptual distance; None: LPIPS with VGG features.
    """

    weight: float = 20.0
    decay: float = 0.95
    sync_steps: int = 50
    anchor: str = "middle"
    distance: Distance | None = field(default=None, compare=False)

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
        for windows, gradient in ((1, False), (count - 1, True), (count - 1, False)):
            calls += calls_for(windows, times=synchronised, gradient=gradient) if synchronised else []
        return calls

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
        target = clean_image(pipe, parts[anchor], predictions[anchor], timestep)
        for start in range(0, len(others), self.window_batch):
            chosen = others[start : start + self.window_batch]
            gradients = self.gradients(pipe, predict, distance, target, chosen, parts, timestep)
            for i, gradient in zip(chosen, gradients, strict=True):
                halves = len(parts[i]) // len(gradient)
                parts[i] = parts[i] - weight * torch.cat([gradient] * halves)
        for i, prediction in zip(others, predict([parts[i] for i in others], indices=others), strict=True):
            predictions[i] = prediction
        latents = [part[: len(target)] for part in parts]
        moved[:] = [windows.average(latents)]
        return as_output(windows.average([predictions[i] for i in range(len(windows))]), kwargs)

    def gradients(
        self,
        pipe: Any,
        predict: Callable[..., list[Tensor]],
        distance: Distance,
        target: Tensor,
        chosen: list[int],
        parts: list[Tensor],
        timestep: Any,
    ) -> list[Tensor]:
        """Gradient of each chosen window's distance to ``target`` by its latent (shared by both guidance halves)."""
        with torch.enable_grad():
            latents = [parts[i][: len(target)].detach().requires_grad_() for i in chosen]
            pairs = [torch.cat([x] * (len(parts[i]) // len(x))) for i, x in zip(chosen, latents, strict=True)]
            total: Tensor = sum(
                distance(clean_image(pipe, pair, prediction, timestep), target).sum()
                for pair, prediction in zip(pairs, predict(pairs, indices=chosen), strict=True)
            )  # type: ignore[assignment]
            return list(torch.autograd.grad(total, latents))


def step_index(scheduler: Any, timestep: Any) -> int:
    """Index of the sampling step with this timestep."""
    return int((scheduler.timesteps == timestep_value(timestep)).nonzero()[0].item())


def clean_image(pipe: Any, pair: Tensor, prediction: Tensor, timestep: Any) -> Tensor:
    """Decode the predicted clean latent, guided if the call holds [uncond, cond].

    Returns:
        (N, 3, H, W) in about [-1, 1], float32 whatever the pipeline's dtype: perceptual networks have float32 weights.
    """
    if getattr(pipe, "do_classifier_free_guidance", False):
        uncond, cond = prediction.chunk(2)
        prediction, pair = uncond + pipe.guidance_scale * (cond - uncond), pair.chunk(2)[0]
    alpha = pipe.scheduler.alphas_cumprod[int(timestep_value(timestep))].to(pair)
    kind = pipe.scheduler.config.prediction_type
    if kind == "epsilon":
        clean = (pair - (1 - alpha).sqrt() * prediction) / alpha.sqrt()
    elif kind == "v_prediction":
        clean = alpha.sqrt() * pair - (1 - alpha).sqrt() * prediction
    else:
        clean = prediction
    vae = pipe.vae
    decoded: Tensor = vae.decode((clean / vae.config.scaling_factor).to(vae.dtype)).sample
    return decoded.float()


def step_from(plain: Callable[..., Any], moved: list[Tensor]) -> Callable[..., Any]:
    """A scheduler step that starts from the latent in ``moved``, if there is one, instead of the pipeline's."""

    def step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        return plain(model_output, timestep, moved.pop() if moved else sample, *args, **kwargs)

    return step
