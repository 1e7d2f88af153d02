"""Parts of a sampling schedule: from which noise level to which a stage samples, with any of diffusers' schedulers.

A stage has a scheduler of its own, made from the pipeline's configuration, so the pipeline's scheduler keeps its state
and multistep schedulers start each stage without a history. Where a stage starts is said as progress p, the share of
the training schedule that is done: at the first step with a timestep of at most T (1 - p). With 50 steps of
DDIM ("leading", as Stable Diffusion is shipped) step i is the first with progress i / 50.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scalecrafter.schedule import timestep_value, train_timesteps, training_timestep

PREDICTIONS = ("epsilon", "v_prediction", "sample")


def check_scheduler(scheduler: Any) -> None:
    """ValueError for a scheduler whose steps or noise levels a cascade does not know."""
    name = type(scheduler).__name__
    training_timestep(scheduler, 1.0)
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS or name.startswith("EDM") or not hasattr(scheduler, "add_noise"):
        raise ValueError(
            f"{name} with prediction_type {kind} cannot renoise a clean latent: use a scheduler of Stable Diffusion, "
            "as DDIMScheduler.from_config(pipe.scheduler.config)"
        )
    if name == "PNDMScheduler" and not scheduler.config.skip_prk_steps:
        raise ValueError("PNDMScheduler cannot start between its Runge-Kutta steps: set skip_prk_steps=True")


def rescheduled(alphas_cumprod: Tensor, ratio: float) -> Tensor:
    """Noise schedule with the signal-to-noise ratio divided by ``ratio``: a / (r - (r - 1) a) (MegaFusion)."""
    return alphas_cumprod / (ratio - (ratio - 1) * alphas_cumprod)


def own_scheduler(scheduler: Any, noise_ratio: float = 1.0) -> Any:
    """A scheduler of the same configuration, with the signal-to-noise ratio divided by ``noise_ratio``."""
    if noise_ratio == 1:
        return type(scheduler).from_config(scheduler.config)
    alphas = rescheduled(scheduler.alphas_cumprod.double().cpu(), noise_ratio)
    betas = 1 - alphas / torch.cat([torch.ones_like(alphas[:1]), alphas[:-1]])
    changes: dict[str, Any] = {"trained_betas": betas.tolist()}
    if scheduler.config.get("rescale_betas_zero_snr"):
        changes["rescale_betas_zero_snr"] = False  # these betas are rescaled already
    return type(scheduler).from_config(scheduler.config, **changes)


def steps_of(scheduler: Any) -> list[float]:
    """The timestep at which each step of a scheduler that knows its timesteps starts."""
    timesteps = scheduler.timesteps.tolist()
    if type(scheduler).__name__ == "PNDMScheduler":  # evaluates the second step's start twice
        return [t for index, t in enumerate(timesteps) if index == 0 or t != timesteps[index - 1]]
    whole: list[float] = timesteps[:: scheduler.order]
    return whole


def first_step(scheduler: Any, steps: int, progress: float) -> int:
    """Index of the first of ``steps`` steps with at least this progress, 0 to 1; the last step if none has."""
    own = own_scheduler(scheduler)
    own.set_timesteps(steps)
    starts = steps_of(own)
    done = [index for index, t in enumerate(starts) if progress_of(scheduler, t) >= progress - 1e-9]
    return done[0] if done else len(starts) - 1


def progress_of(scheduler: Any, timestep: Tensor | float) -> float:
    """Share of the training schedule that is done at a timestep: 1 - t / T."""
    total = train_timesteps(scheduler)
    return (total - training_timestep(scheduler, timestep_value(timestep))) / total


def cosine(scheduler: Any, timestep: Tensor | float) -> float:
    """(1 + cos(pi p)) / 2 at progress p: from 1 at the noisiest timestep to 0."""
    return 0.5 * (1 + math.cos(math.pi * progress_of(scheduler, timestep)))


@dataclass(frozen=True)
class Part:
    """Steps ``first`` to ``last`` (exclusive; None: all that follow) of a schedule of ``steps`` steps.

    Args:
        noise_ratio: the signal-to-noise ratio of the schedule is divided by this.
    """

    steps: int
    first: int = 0
    last: int | None = None
    noise_ratio: float = 1.0

    def trajectory(self, scheduler: Any, device: Any = "cpu") -> Trajectory:
        own = own_scheduler(scheduler, self.noise_ratio)
        own.set_timesteps(self.steps, device=device)
        starts = steps_of(own)
        last = len(starts) if self.last is None else self.last
        if type(own).__name__ == "PNDMScheduler":
            chosen = starts[self.first : last]
            return Trajectory(own, torch.tensor([*chosen[:2], *chosen[1:]], device=own.timesteps.device))
        begin, order = self.first * own.order, own.order
        if hasattr(own, "set_begin_index"):
            own.set_begin_index(begin)
        return Trajectory(own, own.timesteps[begin : last * order])


@dataclass(frozen=True)
class Listed:
    """Chosen timesteps, descending; the last step leads to the clean latent."""

    timesteps: tuple[int, ...]

    def trajectory(self, scheduler: Any, device: Any = "cpu") -> Trajectory:
        """Raises ValueError if the scheduler takes no timesteps and is not DDIM, whose step is done here."""
        own = own_scheduler(scheduler)
        if "timesteps" in inspect.signature(own.set_timesteps).parameters:
            own.set_timesteps(timesteps=list(self.timesteps), device=device)
            if hasattr(own, "set_begin_index"):
                own.set_begin_index(0)
            return Trajectory(own, own.timesteps)
        if type(own).__name__ not in ("DDIMScheduler", "DDIMParallelScheduler"):
            raise ValueError(
                f"{type(own).__name__} does not take a list of timesteps, which this method needs: "
                "use DDIMScheduler or EulerDiscreteScheduler, as DDIMScheduler.from_config(pipe.scheduler.config)"
            )
        return ListedDDIM(own, torch.tensor(self.timesteps, device=device))


def restarts(scheduler: Any, steps: int, progress: float, count: int) -> list[Part]:
    """A whole schedule, then ``count`` - 1 times its steps from ``progress`` on."""
    again = Part(steps, first_step(scheduler, steps, progress))
    return [Part(steps), *[again] * (count - 1)]


def consecutive(scheduler: Any, steps: int, boundaries: Sequence[float]) -> list[Part]:
    """One schedule cut at each progress in ``boundaries``; with few steps boundaries move, so that no part is empty.

    Raises:
        ValueError: fewer steps than parts.
    """
    count = len(boundaries) + 1
    if steps < count:
        raise ValueError(f"this method samples {count} sizes and needs at least {count} steps, not {steps}")
    cuts = [0]
    for index, boundary in enumerate(boundaries, start=1):
        cuts.append(min(max(first_step(scheduler, steps, boundary), cuts[-1] + 1), steps - count + index))
    return [Part(steps, first, last) for first, last in zip(cuts, [*cuts[1:], None], strict=True)]


class Trajectory:
    """The U-Net calls of one part, with the scheduler that makes the steps between them.

    Latents are in the scheduler's space; the U-Net's input is a x + b noise for clean latents x, with `levels` (a, b).
    All methods refer to the current call, which `step` ends.
    """

    def __init__(self, scheduler: Any, timesteps: Tensor) -> None:
        self.scheduler, self.timesteps = scheduler, timesteps
        self.exploding = float(scheduler.init_noise_sigma) != 1  # latents are x + sigma noise

    def levels(self, t: Any) -> tuple[float, float]:
        """(a, b), the square roots of signal and noise power, of the call at timestep ``t``."""
        scheduler = self.scheduler
        if not hasattr(scheduler, "sigmas"):
            power = float(scheduler.alphas_cumprod[int(t)])
            return math.sqrt(power), math.sqrt(1 - power)
        if hasattr(scheduler, "sigmas_interpol") and not scheduler.state_in_first_order:  # between two of its sigmas
            signal = float(scheduler.scale_model_input(torch.ones((), dtype=torch.float64), t))
            return signal, math.sqrt(1 - signal**2)
        sigma = float(
            scheduler.sigmas[scheduler.begin_index if scheduler.step_index is None else scheduler.step_index]
        )
        return 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)

    def noised(self, clean: Tensor, noise: Tensor, t: Any) -> Tensor:
        """Clean latents with the noise of the call at ``t``."""
        a, b = self.levels(t)
        return clean + b / a * noise if self.exploding else a * clean + b * noise

    def pure_noise(self, noise: Tensor) -> Tensor:
        """Unit Gaussian noise as the latents that sampling starts from."""
        return noise * self.scheduler.init_noise_sigma

    def scaled(self, latents: Tensor, t: Any) -> Tensor:
        """The U-Net's input."""
        inputs: Tensor = self.scheduler.scale_model_input(latents, t)
        return inputs

    def clean(self, prediction: Tensor, inputs: Tensor, t: Any) -> Tensor:
        """The clean latents that a prediction of the U-Net for ``inputs`` stands for."""
        a, b = self.levels(t)
        kind = self.scheduler.config.prediction_type
        if kind == "sample":
            return prediction
        return a * inputs - b * prediction if kind == "v_prediction" else (inputs - b * prediction) / a

    def prediction(self, clean: Tensor, inputs: Tensor, t: Any) -> Tensor:
        """The prediction that stands for these clean latents: the inverse of `clean`."""
        a, b = self.levels(t)
        kind = self.scheduler.config.prediction_type
        if kind == "sample":
            return clean
        return (a * inputs - clean) / b if kind == "v_prediction" else (inputs - a * clean) / b

    def step(self, prediction: Tensor, t: Any, latents: Tensor, eta: float, generators: list[Any]) -> Tensor:
        """The latents of the next call."""
        accepted = inspect.signature(self.scheduler.step).parameters
        options: dict[str, Any] = {"eta": eta, "generator": generators}
        options = {name: value for name, value in options.items() if name in accepted}
        stepped: Tensor = self.scheduler.step(prediction, t, latents, **options, return_dict=False)[0]
        return stepped


class ListedDDIM(Trajectory):
    """DDIM (Song et al., 2021, equation 12) from each timestep of a list to the next, and from the last to clean."""

    def step(self, prediction: Tensor, t: Any, latents: Tensor, eta: float, generators: list[Any]) -> Tensor:
        from diffusers.utils.torch_utils import randn_tensor

        later = self.timesteps[self.timesteps < t]
        (a, b), (a_next, b_next) = self.levels(t), self.levels(later[0]) if len(later) else (1.0, 0.0)
        clean = self.clean(prediction, latents, t)
        noise = (latents - a * clean) / b
        deviation = eta * b_next / b * math.sqrt(max(0.0, 1 - (a / a_next) ** 2))
        stepped = a_next * clean + math.sqrt(max(0.0, b_next**2 - deviation**2)) * noise
        if deviation:
            fresh = randn_tensor(latents.shape, generator=generators, device=latents.device, dtype=latents.dtype)
            stepped = stepped + deviation * fresh
        return stepped
