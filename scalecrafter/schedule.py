"""When and by how much a convolution is re-dilated, as pure functions of the U-Net's timestep.

The paper counts steps of 50-step DDIM sampling. Mapping timesteps to that count makes the same settings work with
every scheduler, number of steps and img2img strength, without a counter that could get out of step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scalecrafter.redilate import Factor, per_axis

REFERENCE_STEPS = 50
# Its training schedule ("scaled_linear"), signal power at each of 1000 timesteps.
STABLE_DIFFUSION = tuple(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).tolist())


def host_values(*timesteps: Tensor | float) -> list[float]:
    """Timesteps as numbers; tensors hold the same value for a whole batch. Tensors of one device are fetched together,
    so that a GPU is waited for once.
    """
    tensors = [t.flatten()[0] for t in timesteps if isinstance(t, Tensor)]
    if len(tensors) == len(timesteps) and len({t.device for t in tensors}) == 1:
        together: list[float] = torch.stack(tensors).tolist()
        return together
    return [t.flatten()[0].item() if isinstance(t, Tensor) else t for t in timesteps]


def timestep_value(timestep: Tensor | float) -> float:
    """The timestep of a U-Net call as a number."""
    return host_values(timestep)[0]


def train_timesteps(scheduler: Any) -> int:
    """The number T of timesteps of a scheduler's training schedule."""
    length: int = scheduler.config.get("num_train_timesteps", 1000)
    return length


def training_timestep(scheduler: Any, t: float) -> float:
    """The timestep of the training schedule, 0 to T - 1, with the noise level of a call at ``t``.

    Most schedulers pass it, or a fraction between two. EDM's, and Euler's with ``timestep_type="continuous"``, pass
    log(sigma) / 4 (Karras et al. 2022, table 1). Those without a training schedule get Stable Diffusion's.

    Raises:
        ValueError: a scheduler whose timesteps are neither, as those of flow matching.
    """
    logarithmic = scheduler.config.get("timestep_type") == "continuous"
    if type(scheduler).__name__.startswith("EDM") or logarithmic:
        alphas = getattr(scheduler, "alphas_cumprod", None)
        levels = log_sigmas(STABLE_DIFFUSION if alphas is None else tuple(alphas.tolist()))
        return float(np.interp(4 * t, levels, np.arange(len(levels))))
    if getattr(scheduler, "alphas_cumprod", None) is None:
        raise ValueError(
            f"the timesteps of {type(scheduler).__name__} are not those of a noise schedule that the method knows: "
            "use a scheduler of Stable Diffusion, as DDIMScheduler.from_config(pipe.scheduler.config)"
        )
    return t


@cache
def log_sigmas(alphas_cumprod: tuple[float, ...]) -> np.ndarray:
    """(T,) logarithm of noise over signal at every timestep, ascending."""
    alphas = np.array(alphas_cumprod)
    return 0.5 * np.log((1 - alphas) / alphas)


def reference_step(t: float, train_timesteps: int = 1000) -> int:
    """The paper's step index, floor(50 (1 - t / T)), and 49 for t = 0.

    For 50 DDIM steps with Stable Diffusion's spacing (t = 981, 961, ..., 1) this is exactly the step's index.

    Args:
        t: timestep of the training schedule, 0 to T - 1.
        train_timesteps: T.

    Returns:
        0 (pure noise) to 49.
    """
    # Multiply before dividing: exact for integers, where 1 - t / T would round.
    step = math.floor(REFERENCE_STEPS * (train_timesteps - t) / train_timesteps)
    return min(step, REFERENCE_STEPS - 1)


def step_of_call(scheduler: Any, timestep: Tensor | float) -> int:
    """The paper's step index of a U-Net call with what ``scheduler`` passes as its timestep."""
    t = training_timestep(scheduler, timestep_value(timestep))
    return reference_step(t, train_timesteps(scheduler))


def progressive_dilation(d: float, tau: int, step: int) -> float:
    """Dilation that shrinks over the window, max(ceil(d (tau - step) / tau), 2) (public code, ``progressive``).

    A factor of one stays one: the minimum of 2 applies to dilated layers only.
    """
    return float(max(math.ceil(d * (tau - step) / tau), 2)) if d > 1 else d


def factors_at(table: Mapping[str, Factor], tau: int, progressive: bool, step: int) -> dict[str, Factor]:
    """Dilated layers of ``table`` and their factors at a reference step; empty from step tau on."""
    if step >= tau:
        return {}
    active: dict[str, Factor] = {}
    for name, factor in table.items():
        vertical, horizontal = (progressive_dilation(d, tau, step) if progressive else d for d in per_axis(factor))
        if (vertical, horizontal) != (1, 1):
            active[name] = vertical if vertical == horizontal else (vertical, horizontal)
    return active
