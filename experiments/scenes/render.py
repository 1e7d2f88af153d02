"""Captioned one-object scenes at any size: the training data, the prompts and the real images of the embedded world.

A scene is a value: its caption's factors and a seed. Rendering is a pure function of (scene, height, width), and
since everything is drawn from distance functions in units of the short side, the same scene at another size is the
same picture with more or fewer pixels.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.scenes.backgrounds import PAINT, paint
from experiments.scenes.objects import DRAW, Colour, rgb
from experiments.scenes.shapes import Grid, ellipse

OBJECTS = tuple(DRAW)
HUES = {"red": 0.995, "orange": 0.075, "yellow": 0.145, "green": 0.37, "blue": 0.61, "purple": 0.77}
COLOURS = tuple(HUES)
REACH = 0.68  # half the side of a square that holds any object of size one, tilted, with its shadow
BACKGROUNDS = tuple(PAINT)
PLACE = {"meadow": "in a meadow", "desert": "in a desert", "snow": "in the snow", "beach": "on a beach"}


@dataclass(frozen=True)
class Scene:
    """What a picture shows. ``seed`` decides everything that the caption does not; ``copies`` > 1 is for counting,
    never for training.
    """

    object: str
    colour: str
    background: str
    seed: int
    copies: int = 1

    @property
    def caption(self) -> str:
        article = "an" if self.colour[0] in "aeiou" else "a"
        return f"{article} {self.colour} {self.object} {PLACE[self.background]}"


def sample_scenes(n: int, seed: int) -> list[Scene]:
    """``n`` scenes whose factors are balanced: every run of 144 holds each (object, colour, background) once, in
    an order drawn from ``seed``.
    """
    combinations = [(o, c, b) for o in OBJECTS for c in COLOURS for b in BACKGROUNDS]
    factors, seeds = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 3])
    order = [i for _ in range(math.ceil(n / len(combinations))) for i in factors.permutation(len(combinations))]
    drawn = (combinations[i] for i in order[:n])
    return [Scene(o, c, b, seed=int(seeds.integers(2**62))) for o, c, b in drawn]


def main_colour(name: str, rng: np.random.Generator) -> Colour:
    hue = (HUES[name] + rng.uniform(-0.012, 0.012)) % 1.0
    brightness = rng.uniform(0.88, 1.0) if name == "yellow" else rng.uniform(0.78, 0.93)  # dark yellow is olive
    return rgb(*colorsys.hsv_to_rgb(hue, rng.uniform(0.76, 0.92), brightness))


def places(copies: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """(centre x, centre y, size) of each copy, far ones first: one about 0.6 of the frame, more on a jittered grid
    of smaller ones.
    """
    if copies == 1:
        size = rng.uniform(0.56, 0.68)
        return [(rng.uniform(-0.09, 0.09), rng.uniform(0.30, 0.38) - size / 2, size)]
    columns = math.ceil(math.sqrt(copies))
    rows = math.ceil(copies / columns)
    cells = sorted(int(c) for c in rng.permutation(columns * rows)[:copies])
    size = 0.72 / columns
    spots = []
    for cell in cells:
        row, column = divmod(cell, columns)
        jitter_x, jitter_y = rng.uniform(-0.08, 0.08, 2) / columns
        spots.append(((column + 0.5) / columns - 0.5 + jitter_x, (row + 0.5) / rows - 0.5 + jitter_y, size))
    return spots


def draw_object(
    picture: NDArray[np.float32],
    scene: Scene,
    x: Grid,
    y: Grid,
    spot: tuple[float, float, float],
    rng: np.random.Generator,
) -> None:
    centre_x, centre_y, size = spot
    pixel = 1.0 / min(x.shape)
    tilt, mirror = rng.uniform(-0.07, 0.07), rng.choice([-1.0, 1.0])
    colour = main_colour(scene.colour, rng)
    # Only the part of the picture that the object can reach is painted.
    reach = REACH * size + pixel
    rows = slice(*np.searchsorted(y[:, 0], (centre_y - reach, centre_y + reach)))
    columns = slice(*np.searchsorted(x[0], (centre_x - reach, centre_x + reach)))
    canvas, x, y = picture[rows, columns], x[rows, columns], y[rows, columns]
    shadow = ellipse(x, y, centre_x, centre_y + 0.49 * size, 0.42 * size, 0.06 * size)
    paint(canvas, shadow, rgb(0.1, 0.1, 0.15), 0.02, 0.35)
    u, v = (x - centre_x) / size, (y - centre_y) / size
    local_x = np.float32(mirror) * (np.cos(tilt) * u + np.sin(tilt) * v).astype(np.float32)
    local_y = (-np.sin(tilt) * u + np.cos(tilt) * v).astype(np.float32)
    light = (1.06 - 0.20 * np.clip(local_y + 0.5, 0, 1))[..., None].astype(np.float32)
    for distance, layer_colour in DRAW[scene.object](local_x, local_y, colour, rng):
        paint(canvas, distance, np.clip(layer_colour * light, 0, 1), pixel / size)


def render(scene: Scene, height: int, width: int) -> NDArray[np.uint8]:
    """Draw a scene.

    Returns:
        (height, width, 3) uint8 RGB. The object is scaled by the short side, the background fills the long one.

    Raises:
        ValueError: an object, colour or background that does not exist, or ``copies`` below one.
    """
    for value, known in ((scene.object, OBJECTS), (scene.colour, COLOURS), (scene.background, BACKGROUNDS)):
        if value not in known:
            raise ValueError(f"scenes has no {value!r}: choose from {', '.join(known)}")
    if scene.copies < 1:
        raise ValueError(f"a scene needs at least one copy of its object, not {scene.copies}")
    rng = np.random.default_rng(scene.seed)
    short = min(height, width)
    rows = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / short
    columns = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / short
    y, x = (grid.astype(np.float32) for grid in np.meshgrid(rows, columns, indexing="ij"))
    picture = PAINT[scene.background](x, y, rng, float(rng.uniform(-0.02, 0.12)), 1.0 / short)
    picture = np.ascontiguousarray(picture, dtype=np.float32)
    for spot in places(scene.copies, rng):
        draw_object(picture, scene, x, y, spot, rng)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def render_all(scenes: list[Scene], height: int, width: int) -> NDArray[np.uint8]:
    """(N, height, width, 3) uint8 pictures of ``scenes``."""
    return np.stack([render(scene, height, width) for scene in scenes])
