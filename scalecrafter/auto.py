"""Choose settings for a pipeline and size: tables at some sizes, and one rule between, below and beyond them.

The growth of a side is its length relative to the training size. A table is in force, as it is, at its own growth.
Between two tables every factor is linear in the growth l of the longer side, at every step; from no dilation at
`DEAD_BAND` to the first table likewise, and beyond the last one factors grow with l. A side that has not grown is not
dilated, and the shorter one gets the factor by and by, in full when it has grown as much as the longer one, or to
twice the training size. At the training area or below nothing is dilated, whatever the shape, and up to twice that
area factors set in by and by. So every factor is a continuous function of either side, and does not decrease as long
as the tables do not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

from scalecrafter.blend import Blend, Part, are_one_table, mean_factors, merged
from scalecrafter.pipeline import model_family, training_size
from scalecrafter.redilate import per_axis
from scalecrafter.settings import Settings, available_settings

AREA_RATIO = {"x4": 4.0, "x6_25": 6.25, "x8": 8.0, "x16": 16.0}
ELONGATED, LONGEST = 8.0, 4.0  # the area ratio that stands for growths of 2 and 4, and the growth of its longer side
# Growth of the longer side up to which nothing is dilated. Not from the paper, whose smallest size is growth 2. Up
# to it the embedded scenes model does not repeat objects (docs/pipelines.md); other models were not measured.
DEAD_BAND = 1.25

log = logging.getLogger(__name__)


def auto_settings(pipe: Any, height: int, width: int, tables: Mapping[float, Settings] | None = None) -> Settings:
    """Settings for sampling at ``height`` x ``width`` pixels, by `settings_between`; the choice is logged (INFO).

    Args:
        pipe: pipeline with a UNet2DConditionModel at ``.unet``.
        height, width: of the image, in pixels.
        tables: area ratio -> settings, see `settings_between`; None: those shipped for the model's family.

    Raises:
        ValueError: no tables for this model, a table within the dead band, or its training size is unknown.
    """
    train_height, train_width = training_size(pipe)
    growth = height / train_height, width / train_width
    tables = shipped_tables(pipe) if tables is None else tables
    settings = settings_between(tables, growth)
    of_size = f"{height}x{width} (height x width), {growth[0]:.3g} x {growth[1]:.3g} times the training size"
    log.info("%s: %s", of_size, described(table_weights(tables, growth)[0], settings))
    return settings


def settings_between(tables: Mapping[float, Settings], growth: tuple[float, float]) -> Settings:
    """Settings by the rule of this module: the table itself at its size, ``Settings()`` within the dead band.

    Args:
        tables: area ratio -> settings. A ratio a stands for growths of sqrt(a) along both sides, except 8, which
            stands for 2 and 4. Between 8 and 16 the growth of the shorter side decides, from 2 to 4; where one of
            them is missing, the other one stands for both.
        growth: (vertical, horizontal), each side's length relative to the training size.

    Returns:
        `Settings`, or a `Blend` of the tables. Dispersion and FreeU are those of the nearer table, and off if no
        dilation is nearer.

    Raises:
        ValueError: no tables, where any are needed, or one within the dead band.
    """
    long, area = max(growth), growth[0] * growth[1]
    weights, nearer = table_weights(tables, growth)
    if not weights or area <= 1:
        return Settings()
    full, ramp = min(long, 2.0) - 1, min(area - 1, 1.0)
    axes = [ramp * min(max((side - 1) / full, 0.0), 1.0) for side in growth]
    parts = merged(Part(tables[area], (share * axes[0], share * axes[1])) for area, share in weights.items())
    scale = max(1.0, long / max(map(longer_side, tables)))
    nearest = Settings() if nearer is None else tables[nearer]
    if are_one_table(parts, scale):
        return nearest
    options = nearest.effective()
    dilated = {**mean_factors(parts, scale, 0, False), **mean_factors(parts, scale, 0, True)}
    return Blend(
        parts=parts,
        scale=scale,
        noise_damped_tau=max(part.settings.noise_damped_tau for part in parts),
        dispersed=tuple(name for name in options.dispersed if name in dilated),
        dispersed_tau=options.dispersed_tau,
        dispersed_size=options.dispersed_size,
        dispersion_eta=options.dispersion_eta,
        freeu=options.freeu,
    )


def table_weights(areas: Iterable[float], growth: tuple[float, float]) -> tuple[dict[float, float], float | None]:
    """Weight above 0 of each table, by area ratio, and the nearer table; weights that do not add up to one, and None
    for the nearer one, mean no dilation. Arguments and errors as `settings_between`.
    """
    long, short = max(growth), min(growth)
    if long <= DEAD_BAND:
        return {}, None
    areas = list(areas)
    if not areas:
        raise ValueError(
            'there are no settings for this model: pass settings= a Settings object or a YAML file instead of "auto"'
        )
    sides = sorted({longer_side(area) for area in areas})
    if sides[0] <= DEAD_BAND:
        raise ValueError(
            f"a table for {min(areas):g} times the area lies in the dead band, where nothing is dilated: "
            f"its ratio must be above {DEAD_BAND**2:g}"
        )
    high = min((side for side in sides if side >= long), default=sides[-1])
    low = max((side for side in sides if side < high), default=DEAD_BAND)
    upper = min(1.0, (long - low) / (high - low))
    at_low, at_high = (tables_at(areas, side, short) for side in (low, high))
    shares = {area: (1 - upper) * share for area, share in at_low.items()}
    shares |= {area: upper * share for area, share in at_high.items()}
    nearer = at_high if upper >= 0.5 else at_low
    nearest = max(nearer, key=lambda area: (nearer[area], area), default=None)
    return {area: share for area, share in shares.items() if share > 0}, nearest


def tables_at(areas: Iterable[float], side: float, short: float) -> dict[float, float]:
    """Area ratios of the tables for this growth of the longer side, and their weights; none at the dead band's end."""
    found = sorted(area for area in areas if longer_side(area) == side)
    if len(found) < 2:
        return dict.fromkeys(found, 1.0)
    square = min(max((short - 2) / 2, 0.0), 1.0)
    return {found[0]: 1 - square, found[1]: square}


def longer_side(area: float) -> float:
    """Growth of the longer side that an area ratio stands for."""
    return LONGEST if area == ELONGATED else math.sqrt(area)


def described(weights: Mapping[float, float], settings: Settings) -> str:
    """Tables with their weights, and the largest factors, in words."""
    if not weights:
        return "nothing is dilated"
    tables = " + ".join(f"{share:.2f} of table x{area:g}" for area, share in weights.items())
    factors = [per_axis(d) for d in settings.dilation.values()]
    largest = " x ".join(f"{max((d[axis] for d in factors), default=1):.3g}" for axis in (0, 1))
    return f"{tables}, factors at the first step up to {largest}"


def shipped_tables(pipe: Any) -> dict[float, Settings]:
    """`family_tables` for a pipeline's model."""
    return family_tables(model_family(pipe.unet))


def family_tables(family: str | None) -> dict[float, Settings]:
    """Area ratio -> settings shipped for a model family (sd15, sd21, sdxl); empty if it is unknown."""
    names = available_settings()
    return {
        area: Settings.load(f"{family}_{name}") for name, area in AREA_RATIO.items() if f"{family}_{name}" in names
    }
