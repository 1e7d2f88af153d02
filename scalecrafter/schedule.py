"""When and by how much a convolution is re-dilated, as pure functions of the U-Net's timestep.

The paper counts steps of 50-step DDIM sampling. Mapping timesteps to that count makes the same settings work with
every scheduler, number of steps and img2img strength, without a counter that could get out of step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from scalecrafter.redilate import Factor, per_axis

REFERENCE_STEPS = 50


def timestep_value(timestep: Tensor | float) -> float:
    """The timestep of a U-Net call as a number; tensors hold the same value for the whole batch."""
    return timestep.flatten()[0].item() if isinstance(timestep, Tensor) else timestep


def reference_step(t: float, train_timesteps: int = 1000) -> int:
    """The paper's step index, 0 (pure noise) to 49: floor(50 (1 - t / T)).

    For 50 DDIM steps with Stable Diffusion's spacing (t = 981, 961, ..., 1) this is exactly the step's index.
    """
    # Multiply before dividing: exact for integers, where 1 - t / T would round.
    return math.floor(REFERENCE_STEPS * (train_timesteps - t) / train_timesteps)


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
