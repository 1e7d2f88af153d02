"""Sizes of phases, one for each multiple of the training size."""

from __future__ import annotations

import math
from typing import Any

from baselines.multidiffusion import window_size
from scalecrafter.pipeline import latent_size, vae_scale_factor


def scale_of(pipe: Any, rows: int, columns: int) -> int:
    """How many times the training size a latent has along the axis where it is largest, rounded up."""
    return math.ceil(max(side / base for side, base in zip((rows, columns), window_size(pipe), strict=True)))


def phase_sizes(pipe: Any, height: int, width: int, count: int | None = None) -> list[tuple[int, int]]:
    """(height, width) in pixels of the phases to an image of this size.

    The first has the training size along the axis that grows most, and the aspect ratio of the image; then follow the
    multiples of that size, and last the image's. ``count``: so many of them, evenly; None: all.
    """
    factor, latent = vae_scale_factor(pipe), latent_size(pipe, (height, width))
    last = scale_of(pipe, *latent)
    side, base = max(zip(latent, window_size(pipe), strict=True), key=lambda pair: pair[0] / pair[1])
    most = last if count is None else min(count, last)
    scales = [1 + round((last - 1) * i / (most - 1)) for i in range(most - 1)] if most > 1 else []
    smaller = [tuple(max(1, full * s * base // side) * factor for full in latent) for s in scales]
    return [*((rows, columns) for rows, columns in smaller), (height, width)]
