"""When a convolution is re-dilated and by how much: pure functions of the timestep the U-Net is called with.

The paper counts the steps of a 50-step DDIM sampling. Here a timestep is mapped to that count, so the same settings
hold for every scheduler, number of steps and img2img strength, and no counter can go stale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from scalecrafter.redilate import Factor, per_axis

REFERENCE_STEPS = 50


def timestep_value(timestep: Tensor | float) -> float:
    """The number in what a U-Net is called with: a number, or a tensor of one value for the whole batch."""
    return timestep.flatten()[0].item() if isinstance(timestep, Tensor) else timestep


def reference_step(t: float, train_timesteps: int = 1000) -> int:
    """The paper's step index, 0 (pure noise) to 49: floor(50 (1 - t / T)).

    With 50 DDIM steps at Stable Diffusion's spacing (t = 981, 961, ..., 1) this is exactly the index of the step.
    """
    # Multiplied before it is divided: exact for integers, where 1 - t / T would round.
    return math.floor(REFERENCE_STEPS * (train_timesteps - t) / train_timesteps)


def progressive_dilation(d: float, tau: int, step: int) -> float:
    """Dilation that shrinks over the window, max(ceil(d (tau - step) / tau), 2) (reference code, ``progressive``).

    A factor of one stays: the floor of 2 is for what is dilated.
    """
    return float(max(math.ceil(d * (tau - step) / tau), 2)) if d > 1 else d


def factors_at(table: Mapping[str, Factor], tau: int, progressive: bool, step: int) -> dict[str, Factor]:
    """The layers of ``table`` that are dilated at a reference step, with their factors; none once step >= tau."""
    if step >= tau:
        return {}
    active: dict[str, Factor] = {}
    for name, factor in table.items():
        vertical, horizontal = (progressive_dilation(d, tau, step) if progressive else d for d in per_axis(factor))
        if (vertical, horizontal) != (1, 1):
            active[name] = vertical if vertical == horizontal else (vertical, horizontal)
    return active
