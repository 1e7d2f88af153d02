"""Signed distance functions, lines and noise on coordinate grids.

Every function takes coordinate arrays ``x`` (pointing right) and ``y`` (pointing down) of one shape. Distances are
negative inside the shape, in the units of the coordinates; `coverage` and `line` turn them into antialiased masks at
any resolution.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.float32]


def coverage(distance: Grid, pixel: float) -> Grid:
    """Fraction of each pixel inside a shape, in [0, 1]; ``pixel`` is the pixel side in units of ``distance``."""
    return np.clip(0.5 - distance / pixel, 0.0, 1.0)


def line(distance: Grid, width: float, pixel: float) -> Grid:
    """Fraction of each pixel on a line of ``width`` whose centre is ``distance`` away; it fades below a pixel."""
    half = max(width, pixel) / 2
    return coverage(np.abs(distance) - np.float32(half), pixel) * np.float32(min(1.0, width / pixel))


def window(x: Grid, y: Grid, cx: float, cy: float, half_width: float, half_height: float) -> tuple[slice, slice]:
    """Rows and columns of a grid parallel to the axes that lie in a box. What is small is computed there alone."""
    rows = np.searchsorted(y[:, 0], (cy - half_height, cy + half_height))
    columns = np.searchsorted(x[0], (cx - half_width, cx + half_width))
    return slice(*map(int, rows)), slice(*map(int, columns))


def covered(mask: Grid) -> tuple[slice, slice]:
    """Rows and columns outside which ``mask`` (H, W), of values of at least 0, is 0."""
    spans = []
    for axis in (1, 0):
        inside = np.flatnonzero(mask.max(axis=axis, initial=0.0))
        spans.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0))
    return spans[0], spans[1]


def periodic(t: Grid, period: float, phase: float = 0.0) -> Grid:
    """Signed distance to the nearest of the points phase + k * period."""
    return (t - phase + period / 2) % period - period / 2


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


def below(y: Grid, level: NDArray[np.floating] | float) -> Grid:
    """Half plane below a horizontal line or curve ``level``."""
    return (level - y).astype(y.dtype)


def hashed(rows: NDArray[np.int64], columns: NDArray[np.int64], seed: int) -> Grid:
    """Values in [-1, 1) for all pairs of integers (rows, columns), a function of the pair and the seed alone."""
    h = (rows.astype(np.uint32)[:, None] * np.uint32(0x9E3779B1)) ^ (
        columns.astype(np.uint32)[None] * np.uint32(0x85EBCA77) + np.uint32(seed & 0xFFFFFFFF)
    )
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):  # a finaliser with full avalanche
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    return ((h ^ (h >> np.uint32(15))).astype(np.float32) / np.float32(2**31) - 1).astype(np.float32)


def interpolation(t: Grid, cell: float) -> tuple[NDArray[np.int64], Grid]:
    """The lattice indices that coordinates on a line touch, and the (len(t), n) matrix that interpolates smoothly."""
    scaled = t / np.float32(cell)
    first = np.floor(scaled).astype(np.int64)
    share = (scaled - first).astype(np.float32)
    share = share * share * (3 - 2 * share)
    indices = np.arange(first.min(), first.max() + 2)
    weights = np.zeros((len(t), len(indices)), np.float32)
    row = np.arange(len(t))
    weights[row, first - indices[0]] = 1 - share
    weights[row, first - indices[0] + 1] = share
    return indices, weights


def noise(
    x: Grid, y: Grid, seed: int, cell: float, pixel: float, stretch: float = 1.0, roughness: float = 0.6
) -> Grid:
    """Scale-free noise with the look of grass, sand, snow or bark: octaves of value noise, each half as large.

    Args:
        x: coordinates of a grid parallel to the axes, as y.
        y: coordinates.
        seed: of the lattices; equal seeds give the same pattern at every resolution.
        cell: lattice spacing of the first octave along y.
        pixel: pixel side. Octaves fade out below three pixels, so that more of them appear in a larger image.
        stretch: lattice spacing along x relative to y.
        roughness: amplitude of an octave relative to the one before.

    Returns:
        Values of about [-1, 1].
    """
    total, amplitude = np.zeros_like(x), 1.0
    while (fade := min(1.0, (cell / pixel - 1) / 2)) > 0:
        rows, down = interpolation(y[:, 0], cell)
        columns, along = interpolation(x[0], cell * stretch)
        total += np.float32(fade * amplitude) * (down @ hashed(rows, columns, seed) @ along.T)
        seed, cell, amplitude = (seed * 747796405 + 2891336453) & 0xFFFFFFFF, cell / 2, amplitude * roughness
    return total
