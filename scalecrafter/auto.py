"""Choose settings for a pipeline and size: those of the nearest area ratio, with their factors scaled to this size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from scalecrafter.pipeline import model_family, training_size
from scalecrafter.redilate import Factor, per_axis
from scalecrafter.settings import Settings, available_settings

AREA_RATIO = {"x4": 4.0, "x6_25": 6.25, "x8": 8.0, "x16": 16.0}


def auto_settings(pipe: Any, height: int, width: int, tables: Mapping[float, Settings] | None = None) -> Settings:
    """Settings for sampling at ``height`` x ``width`` pixels.

    The table with the nearest area ratio (in log space, the larger ratio on a tie) is used. Its factors above one are
    multiplied by the square root of (target area / area of the table), so that the receptive field grows with the
    image, and never fall below one. At the training area or below nothing is dilated.

    Args:
        pipe: pipeline with a UNet2DConditionModel at ``.unet``.
        height, width: of the image, in pixels.
        tables: area ratio -> settings to choose from; None: those shipped for the model's family.

    Raises:
        ValueError: no tables for this model, or its training size is unknown.
    """
    train_height, train_width = training_size(pipe)
    ratio = height * width / (train_height * train_width)
    if ratio <= 1:
        return Settings()
    tables = shipped_tables(pipe) if tables is None else tables
    if not tables:
        raise ValueError(
            'there are no settings for this model: pass settings= a Settings object or a YAML file instead of "auto"'
        )
    nearest = min(tables, key=lambda area: (abs(math.log(area / ratio)), -area))
    settings, scale = tables[nearest], math.sqrt(ratio / nearest)
    if scale == 1:
        return settings
    return replace(
        settings,
        dilation=scaled(settings.dilation, scale),
        noise_damped_dilation=scaled(settings.noise_damped_dilation, scale),
    )


def shipped_tables(pipe: Any) -> dict[float, Settings]:
    """Area ratio -> settings shipped for the model's family; empty if it is unknown."""
    family, names = model_family(pipe.unet), available_settings()
    return {
        area: Settings.load(f"{family}_{name}") for name, area in AREA_RATIO.items() if f"{family}_{name}" in names
    }


def scaled(table: Mapping[str, Factor], scale: float) -> dict[str, Factor]:
    """Factors times ``scale``, rounded to two decimals, at least one; a factor of one stays."""

    def side(d: float) -> float:
        return max(1.0, round(d * scale, 2)) if d > 1 else d

    return {name: (side(per_axis(d)[0]), side(per_axis(d)[1])) for name, d in table.items()}
