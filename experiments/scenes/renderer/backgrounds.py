"""The four backgrounds: a sky above a horizon and a lightly textured ground.

Coordinates as in `experiments.scenes.renderer.scene`: the short side of the image spans one unit, (0, 0) is the
centre, y points down. Each painter takes (x, y, random generator, horizon, pixel size) and returns a canvas.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from experiments.scenes.renderer.objects import Colour, lighter, rgb
from experiments.scenes.renderer.shapes import Grid, below, coverage, ellipse

Canvas = NDArray[np.float32]  # (H, W, 3) in [0, 1]


def paint(canvas: Canvas, distance: Grid, colour: Colour | Canvas, pixel: float, opacity: float = 1.0) -> None:
    """Paint ``colour`` onto ``canvas`` in place where ``distance`` is negative; ``pixel`` is the side of a pixel."""
    alpha = coverage(distance, pixel)[..., None] * np.float32(opacity)
    canvas += alpha * (colour - canvas)


def gradient(y: Grid, top: Colour, bottom: Colour, start: float, stop: float) -> Canvas:
    """Blend (H, W, 3) from ``top`` at y = start to ``bottom`` at y = stop."""
    share = np.clip((y - start) / (stop - start), 0.0, 1.0)[..., None]
    return top + share * (bottom - top)


def jittered(colour: Colour, rng: np.random.Generator, amount: float = 0.035) -> Colour:
    return np.clip(colour + rng.uniform(-amount, amount, 3).astype(np.float32), 0, 1)


def waves(x: Grid, rng: np.random.Generator, amplitude: float, frequency: float) -> Grid:
    """A smooth random curve over x: two sines with random phases."""
    first, second = rng.uniform(0, 2 * np.pi, 2)
    curve = np.sin(frequency * x + first) + 0.5 * np.sin(2.3 * frequency * x + second)
    return (amplitude * curve / 1.5).astype(np.float32)


def sky(y: Grid, rng: np.random.Generator, top: Colour, bottom: Colour, horizon: float) -> Canvas:
    return gradient(y, jittered(top, rng), jittered(bottom, rng), -0.5, horizon)


def clouds(canvas: Canvas, x: Grid, y: Grid, rng: np.random.Generator, pixel: float) -> None:
    for _ in range(2):
        cx, cy, size = rng.uniform(-0.5, 0.5), rng.uniform(-0.44, -0.30), rng.uniform(0.06, 0.10)
        for offset, scale in ((-0.9, 0.7), (0.0, 1.0), (0.9, 0.65)):
            blob = ellipse(x, y, cx + offset * size, cy, size * scale * 1.2, size * scale * 0.55)
            paint(canvas, blob, rgb(1, 1, 1), pixel, 0.85)


def meadow(x: Grid, y: Grid, rng: np.random.Generator, horizon: float, pixel: float) -> Canvas:
    canvas = sky(y, rng, rgb(0.42, 0.69, 0.93), rgb(0.83, 0.93, 0.98), horizon)
    clouds(canvas, x, y, rng, pixel)
    hill = horizon - 0.05 + waves(x, rng, 0.05, 5.0)
    paint(canvas, below(y, hill), jittered(rgb(0.40, 0.62, 0.40), rng), pixel)
    near, far = jittered(rgb(0.30, 0.58, 0.22), rng), jittered(rgb(0.52, 0.76, 0.34), rng)
    paint(canvas, below(y, horizon + waves(x, rng, 0.012, 7.0)), gradient(y, far, near, horizon, 0.5), pixel)
    for _ in range(9):
        cx, cy = rng.uniform(-0.55, 0.55), rng.uniform(horizon + 0.08, 0.48)
        paint(canvas, ellipse(x, y, cx, cy, 0.045, 0.012), lighter(near, 0.22), pixel, 0.7)
    return canvas


def desert(x: Grid, y: Grid, rng: np.random.Generator, horizon: float, pixel: float) -> Canvas:
    canvas = sky(y, rng, rgb(0.98, 0.72, 0.42), rgb(1.0, 0.91, 0.70), horizon)
    sun_x, sun_y = rng.uniform(-0.40, 0.40), rng.uniform(-0.40, -0.30)
    paint(canvas, ellipse(x, y, sun_x, sun_y, 0.07, 0.07), rgb(1.0, 0.97, 0.82), pixel)
    sand = jittered(rgb(0.90, 0.70, 0.42), rng)
    paint(canvas, below(y, horizon - 0.03 + waves(x, rng, 0.05, 4.0)), sand * np.float32(0.90), pixel)
    for depth, shade in ((0.05, 1.0), (0.19, 0.94), (0.33, 1.03)):
        dune = horizon + depth + waves(x, rng, 0.035, 4.5)
        paint(canvas, below(y, dune), np.clip(sand * np.float32(shade), 0, 1), pixel)
    return canvas


def snow(x: Grid, y: Grid, rng: np.random.Generator, horizon: float, pixel: float) -> Canvas:
    canvas = sky(y, rng, rgb(0.50, 0.58, 0.70), rgb(0.80, 0.85, 0.91), horizon)
    for _ in range(3):
        cx, width, height = rng.uniform(-0.6, 0.6), rng.uniform(0.18, 0.3), rng.uniform(0.14, 0.24)
        slope = (np.abs(x - cx) / width * height - (y - (horizon - height))) * -1.0
        paint(canvas, -slope, jittered(rgb(0.56, 0.62, 0.72), rng, 0.02), pixel)
    white = jittered(rgb(0.93, 0.95, 0.98), rng, 0.02)
    paint(canvas, below(y, horizon + waves(x, rng, 0.015, 4.0)), white, pixel)
    paint(canvas, below(y, horizon + 0.16 + waves(x, rng, 0.03, 5.0)), white * np.float32(0.95), pixel)
    return canvas


def beach(x: Grid, y: Grid, rng: np.random.Generator, horizon: float, pixel: float) -> Canvas:
    canvas = sky(y, rng, rgb(0.36, 0.75, 0.93), rgb(0.86, 0.96, 0.98), horizon)
    clouds(canvas, x, y, rng, pixel)
    sea = gradient(y, jittered(rgb(0.08, 0.42, 0.66), rng), rgb(0.25, 0.72, 0.78), horizon, horizon + 0.17)
    paint(canvas, below(y, np.full_like(x, horizon)), sea, pixel)
    shore = horizon + 0.16 + waves(x, rng, 0.015, 6.0)
    paint(canvas, below(y, shore), rgb(0.96, 0.98, 0.97), pixel)
    paint(canvas, below(y, shore + 0.02), jittered(rgb(0.95, 0.85, 0.62), rng), pixel)
    return canvas


BACKGROUND_PAINTERS: dict[str, Callable[[Grid, Grid, np.random.Generator, float, float], Canvas]] = {
    "meadow": meadow,
    "desert": desert,
    "snow": snow,
    "beach": beach,
}
