"""The four backgrounds: a sky above a horizon and a textured ground.

Coordinates as in `experiments.scenes.renderer.scene`: the short side of the image spans one unit, (0, 0) is the
centre, y points down. Each painter takes (x, y, random generator, horizon, pixel size) and returns a canvas.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from experiments.scenes.renderer.frame import Colour, rgb
from experiments.scenes.renderer.shapes import Grid, below, coverage, covered, ellipse, line, noise, periodic, window

Canvas = NDArray[np.float32]  # (H, W, 3) in [0, 1]


def paint(canvas: Canvas, distance: Grid, colour: Colour | Canvas, pixel: float, opacity: float = 1.0) -> None:
    """Paint ``colour`` onto ``canvas`` in place where ``distance`` is negative; ``pixel`` is the side of a pixel."""
    alpha = coverage(distance, pixel) * np.float32(opacity)
    rows, _ = covered(alpha)
    shown = colour[rows] if colour.ndim == 3 else colour
    canvas[rows] += alpha[rows][..., None] * (shown - canvas[rows])


def gradient(y: Grid, top: Colour, bottom: Colour, start: float, stop: float) -> Canvas:
    """Blend (H, 1, 3) from ``top`` at y = start to ``bottom`` at y = stop."""
    share = np.clip((y[:, :1] - start) / (stop - start), 0.0, 1.0)[..., None]
    return top + share * (bottom - top)


def jittered(colour: Colour, rng: np.random.Generator, amount: float = 0.03) -> Colour:
    return np.clip(colour + rng.uniform(-amount, amount, 3).astype(np.float32), 0, 1)


def seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**32))


def lit(colour: Colour | Canvas, shade: Grid, amount: float) -> Canvas:
    """``colour`` made brighter and darker by ``amount`` times ``shade`` (H, W)."""
    return colour * (1 + np.float32(amount) * shade)[..., None]


def waves(x: Grid, rng: np.random.Generator, amplitude: float, frequency: float) -> Grid:
    """A smooth random curve (1, W) over x: two sines with random phases."""
    first, second = rng.uniform(0, 2 * np.pi, 2)
    curve = np.sin(frequency * x[:1] + first) + 0.5 * np.sin(2.3 * frequency * x[:1] + second)
    return (amplitude * curve / 1.5).astype(np.float32)


def sky(y: Grid, rng: np.random.Generator, top: Colour, bottom: Colour, horizon: float) -> Canvas:
    column = gradient(y, jittered(top, rng), jittered(bottom, rng), -0.5, horizon)
    return np.repeat(column, y.shape[1], axis=1)


def clouds(canvas: Canvas, x: Grid, y: Grid, rng: np.random.Generator, pixel: float) -> None:
    for _ in range(2):
        cx, cy, size = rng.uniform(-0.5, 0.5), rng.uniform(-0.44, -0.30), rng.uniform(0.07, 0.11)
        ragged = 0.02 * noise(x, y, seed(rng), 0.05, pixel)
        here = window(x, y, cx, cy, 2 * size + 0.2 + pixel, size + 0.2 + pixel)
        for offset, scale in ((-0.9, 0.7), (0.0, 1.0), (0.9, 0.65)):
            blob = ellipse(x[here], y[here], cx + offset * size, cy, size * scale * 1.2, size * scale * 0.55)
            paint(canvas[here], blob + ragged[here], rgb(1, 1, 1), 0.02 + pixel, 0.85)


def meadow(x: Grid, y: Grid, rng: np.random.Generator, horizon: float, pixel: float) -> Canvas:
    canvas = sky(y, rng, rgb(0.40, 0.66, 0.92), rgb(0.82, 0.92, 0.98), horizon)
    clouds(canvas, x, y, rng, pixel)
    trees = noise(x, y, seed(rng), 0.06, pixel)
    hill = horizon - 0.06 + waves(x, rng, 0.04, 5.0) + 0.015 * trees
    paint(canvas, below(y, hill), lit(jittered(rgb(0.33, 0.54, 0.36), rng), trees, 0.10), pixel)
    near, far = jittered(rgb(0.27, 0.53, 0.20), rng), jittered(rgb(0.52, 0.75, 0.34), rng)
    patches, blades = noise(x, y, seed(rng), 0.2, pixel, 2.5), noise(x, y, seed(rng), 0.06, pixel, 0.35)
    grass = lit(gradient(y, far, near, horizon, 0.5), 0.5 * patches + blades, 0.10)
    paint(canvas, below(y, horizon + waves(x, rng, 0.012, 7.0) + 0.006 * blades), grass, pixel)
    for _ in range(10):  # flowers: a dot from afar, petals from near
        cx, cy = rng.uniform(-0.55, 0.55), rng.uniform(horizon + 0.10, 0.48)
        radius = 0.008 + 0.012 * (cy - horizon)
        here = window(x, y, cx, cy, 1.3 * radius + pixel, 1.3 * radius + pixel)
        across, down = x[here] - cx, y[here] - cy
        petals = np.hypot(across, down) - radius * (1 + 0.3 * np.cos(5 * np.arctan2(down, across)))
        paint(canvas[here], petals.astype(np.float32), rgb(0.98, 0.96, 0.90), pixel)
        middle = ellipse(x[here], y[here], cx, cy, 0.4 * radius, 0.4 * radius)
        paint(canvas[here], middle, rgb(0.95, 0.75, 0.2), pixel)
    return canvas


def desert(x: Grid, y: Grid, rng: np.random.Generator, horizon: float, pixel: float) -> Canvas:
    canvas = sky(y, rng, rgb(0.97, 0.70, 0.42), rgb(1.0, 0.90, 0.70), horizon)
    sun_x, sun_y = rng.uniform(-0.40, 0.40), rng.uniform(-0.40, -0.30)
    paint(canvas, ellipse(x, y, sun_x, sun_y, 0.07, 0.07), rgb(1.0, 0.97, 0.82), 0.015 + pixel)
    sand = jittered(rgb(0.90, 0.70, 0.42), rng)
    strata = noise(x, y, seed(rng), 0.03, pixel, 8.0)
    rock = horizon - 0.05 + waves(x, rng, 0.05, 4.0) + 0.012 * noise(x, y, seed(rng), 0.06, pixel)
    paint(canvas, below(y, rock), lit(jittered(rgb(0.78, 0.52, 0.34), rng), strata, 0.10), pixel)
    grains = noise(x, y, seed(rng), 0.04, pixel, 2.0, 0.75)
    for depth, shade in ((0.02, 1.0), (0.17, 0.93), (0.31, 1.02)):
        crest = horizon + depth + waves(x, rng, 0.03, 4.5)
        bend = 0.02 * noise(x, y, seed(rng), 0.15, pixel, 2.0)
        ripples = np.cos(2 * np.pi * (y - crest + bend) / 0.03) * min(1.0, max(0.0, 0.03 / pixel / 2 - 1))
        texture = lit(np.clip(sand * np.float32(shade), 0, 1), 0.6 * ripples + grains, 0.045)
        paint(canvas, below(y, crest), texture, pixel)
    return canvas


def snow(x: Grid, y: Grid, rng: np.random.Generator, horizon: float, pixel: float) -> Canvas:
    canvas = sky(y, rng, rgb(0.48, 0.57, 0.71), rgb(0.80, 0.85, 0.91), horizon)
    rock = noise(x, y, seed(rng), 0.12, pixel)
    for _ in range(3):
        cx, width, height = rng.uniform(-0.6, 0.6), rng.uniform(0.20, 0.32), rng.uniform(0.16, 0.26)
        slope = y - (horizon - height) - np.abs(x - cx) / width * height + 0.012 * rock
        tops = coverage((y - (horizon - 0.7 * height) + 0.05 * rock).astype(np.float32), 0.02 + pixel)
        stone = lit(jittered(rgb(0.50, 0.56, 0.67), rng, 0.02), rock, 0.14)
        paint(canvas, -slope, stone + tops[..., None] * (rgb(0.90, 0.93, 0.97) - stone), pixel)
    white = jittered(rgb(0.92, 0.94, 0.98), rng, 0.02)
    drifts, grains = noise(x, y, seed(rng), 0.15, pixel, 3.0), noise(x, y, seed(rng), 0.03, pixel, 1.0, 0.75)
    ground = lit(white, 0.8 * drifts + 0.6 * grains, 0.045)
    paint(canvas, below(y, horizon + waves(x, rng, 0.015, 4.0)), ground, pixel)
    paint(canvas, below(y, horizon + 0.16 + waves(x, rng, 0.03, 5.0)), ground * np.float32(0.95), pixel)
    return canvas


def beach(x: Grid, y: Grid, rng: np.random.Generator, horizon: float, pixel: float) -> Canvas:
    canvas = sky(y, rng, rgb(0.34, 0.72, 0.93), rgb(0.86, 0.96, 0.98), horizon)
    clouds(canvas, x, y, rng, pixel)
    sea = gradient(y, jittered(rgb(0.08, 0.42, 0.66), rng), rgb(0.25, 0.72, 0.78), horizon, horizon + 0.17)
    swell = noise(x, y, seed(rng), 0.02, pixel, 6.0)
    paint(canvas, below(y, np.full_like(x, horizon)), lit(sea, swell, 0.12), pixel)
    shore = horizon + 0.15 + waves(x, rng, 0.015, 6.0) + 0.006 * noise(x, y, seed(rng), 0.06, pixel)
    foam = line(periodic(y - shore, 0.03), 0.006, pixel) * (np.abs(y - shore + 0.03) < 0.04)
    canvas += (0.7 * foam)[..., None] * (rgb(0.96, 0.98, 0.97) - canvas)
    paint(canvas, below(y, shore), rgb(0.96, 0.98, 0.97), pixel)
    sand = jittered(rgb(0.93, 0.83, 0.61), rng)
    wet = gradient(y, sand * np.float32(0.82), sand, horizon + 0.16, horizon + 0.26)
    grains, dents = noise(x, y, seed(rng), 0.03, pixel, 1.0, 0.75), noise(x, y, seed(rng), 0.12, pixel, 2.5)
    paint(canvas, below(y, shore + 0.02), lit(wet, grains + 0.8 * dents, 0.045), pixel)
    for _ in range(7):  # shells
        cx, cy, size = rng.uniform(-0.55, 0.55), rng.uniform(horizon + 0.24, 0.49), rng.uniform(0.006, 0.012)
        here = window(x, y, cx, cy, size + 2 * pixel, size + 2 * pixel)
        ribs = 0.85 + 0.15 * np.cos(9 * np.arctan2(y[here] - cy - size, x[here] - cx))
        shell = ellipse(x[here], y[here], cx, cy, size, 0.8 * size)
        paint(canvas[here], shell, rgb(0.99, 0.93, 0.90) * ribs[..., None], pixel)
    return canvas


BACKGROUND_PAINTERS: dict[str, Callable[[Grid, Grid, np.random.Generator, float, float], Canvas]] = {
    "meadow": meadow,
    "desert": desert,
    "snow": snow,
    "beach": beach,
}
