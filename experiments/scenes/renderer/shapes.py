"""Signed distance functions: negative inside the shape, in the units of the coordinates.

Every function takes coordinate arrays ``x`` (pointing right) and ``y`` (pointing down) of one shape and returns the
distance on that grid. `coverage` turns distances into antialiased masks at any resolution.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.float32]


def coverage(distance: Grid, pixel: float) -> Grid:
    """Fraction of each pixel inside a shape, in [0, 1]; ``pixel`` is the pixel side in units of ``distance``."""
    return np.clip(0.5 - distance / pixel, 0.0, 1.0)


def ellipse(x: Grid, y: Grid, cx: float, cy: float, rx: float, ry: float) -> Grid:
    """Gradient-normalised implicit ellipse: exact for circles, first-order accurate near the boundary otherwise."""
    u, v = (x - cx) / rx, (y - cy) / ry
    radius = np.sqrt(u * u + v * v)
    gradient = np.sqrt((u / rx) ** 2 + (v / ry) ** 2)
    return (radius - 1.0) * radius / np.maximum(gradient, 1e-6)


def box(x: Grid, y: Grid, cx: float, cy: float, half_width: float, half_height: float, corner: float = 0.0) -> Grid:
    """Axis-aligned rectangle with rounded corners of radius ``corner``."""
    u = np.abs(x - cx) - (half_width - corner)
    v = np.abs(y - cy) - (half_height - corner)
    outside = np.sqrt(np.maximum(u, 0.0) ** 2 + np.maximum(v, 0.0) ** 2)
    return outside + np.minimum(np.maximum(u, v), 0.0) - corner


def polygon(x: Grid, y: Grid, *corners: tuple[float, float]) -> Grid:
    """Convex polygon with corners clockwise on screen (y points down): the largest signed distance to its edges."""
    distance = np.full_like(x, -np.inf)
    for (ax, ay), (bx, by) in zip(corners, (*corners[1:], corners[0]), strict=True):
        length = float(np.hypot(bx - ax, by - ay))
        distance = np.maximum(distance, ((x - ax) * (by - ay) - (y - ay) * (bx - ax)) / length)
    return distance


def segment(x: Grid, y: Grid, ax: float, ay: float, bx: float, by: float, radius: float) -> Grid:
    """Capsule: all points within ``radius`` of the segment from (ax, ay) to (bx, by)."""
    dx, dy = bx - ax, by - ay
    along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
    distance: Grid = np.sqrt((x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2) - np.float32(radius)
    return distance


def below(y: Grid, level: Grid | float) -> Grid:
    """Half plane below a horizontal line or curve ``level``."""
    return (level - y).astype(y.dtype)
