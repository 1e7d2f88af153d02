"""The parts of ScaleCrafter as switches: what is on in given settings, and what has to be changed to switch it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from scalecrafter.schedule import REFERENCE_STEPS
from scalecrafter.settings import Settings

BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.")


@dataclass(frozen=True)
class Parts:
    """Which parts of the method are on.

    Args:
        redilation: convolutions are re-dilated; without it nothing else of the method is left.
        cutoff: it ends before the last steps.
        dispersion: kernels are dispersed as well.
        noise_damping: guidance is noise-damped.
    """

    redilation: bool = True
    cutoff: bool = True
    dispersion: bool = False
    noise_damping: bool = False


def parts_of(settings: Settings) -> Parts:
    """The parts that have an effect in these settings."""
    acting = settings.effective()
    return Parts(
        redilation=acting.tau > 0,
        cutoff=acting.tau < REFERENCE_STEPS,
        dispersion=acting.dispersed_tau > 0,
        noise_damping=acting.noise_damped_tau > 0,
    )


def changes_for(settings: Settings, parts: Parts, levels: int) -> dict[str, Any]:
    """Fields of the settings to replace, as `Settings.changed` takes them, so that ``parts`` are on.

    A part that is off in ``settings`` and is switched on acts while layers are dilated: dispersion on the `inner`
    layers, and noise damping with a base pass that dilates these alone, as the paper leaves its outer blocks as they
    are.

    Args:
        levels: of the U-Net.
    """
    if not parts.redilation:
        return {"tau": 0, "noise_damped_tau": 0, "dispersed_tau": 0}
    now, found = parts_of(settings), dict[str, Any]()
    tau = settings.tau
    if not parts.cutoff:
        tau = found["tau"] = REFERENCE_STEPS
    if parts.dispersion != now.dispersion:
        found["dispersed_tau"] = tau if parts.dispersion else 0
        if parts.dispersion:
            found["dispersed"] = inner(settings.dilation, levels)
    if parts.noise_damping != now.noise_damping:
        found["noise_damped_tau"] = tau if parts.noise_damping else 0
        if parts.noise_damping:
            names = inner(settings.dilation, levels)
            found["noise_damped_dilation"] = {name: settings.dilation[name] for name in names}
    return found


def inner(layers: Iterable[str], levels: int) -> list[str]:
    """Those of the dilated layers that are deeper in a U-Net of this many levels than the outermost of them."""
    depths = {name: level_of(name, levels) for name in layers}
    outermost = min(depths.values(), default=0)
    return [name for name, depth in depths.items() if depth > outermost]


def level_of(layer: str, levels: int) -> int:
    """Level of a convolution, from 0 at the latent's size; the middle block is below all others."""
    found = BLOCK.match(layer)
    if found is None:
        return levels
    return int(found[2]) if found[1] == "down" else levels - 1 - int(found[2])
