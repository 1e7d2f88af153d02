"""Captioned one-object scenes at any size: training data, prompts and real images of the embedded world.

A scene is a value: the factors named in its caption and a seed. Rendering is a pure function of (scene, height,
width). Everything is defined in units of the short side, so the same scene at another size is the same image with
more or fewer pixels.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.scenes.renderer.backgrounds import BACKGROUND_PAINTERS, Canvas, paint
from experiments.scenes.renderer.objects import OBJECT_LAYERS, Colour, rgb
from experiments.scenes.renderer.shapes import Grid, ellipse

OBJECTS = tuple(OBJECT_LAYERS)
HUES = {"red": 0.995, "orange": 0.075, "yellow": 0.145, "green": 0.37, "blue": 0.61, "purple": 0.77}
COLOURS = tuple(HUES)
HALF_EXTENT = 0.68  # half the side of a square that contains any object of size one, tilted, with its shadow
BACKGROUNDS = tuple(BACKGROUND_PAINTERS)
PLACE = {"meadow": "in a meadow", "desert": "in a desert", "snow": "in the snow", "beach": "on a beach"}


@dataclass(frozen=True)
class Scene:
    """Contents of one image. ``seed`` determines everything the caption does not mention. ``copies`` > 1 trains the
    classifier to count; the diffusion model only sees single objects.
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
    """Sample ``n`` scenes with balanced factors: each block of 144 contains every (object, colour, background) once,
    shuffled by ``seed``. A smaller ``n`` gives a prefix.
    """
    combinations = [(o, c, b) for o in OBJECTS for c in COLOURS for b in BACKGROUNDS]
    factors, seeds = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 3])
    order = [i for _ in range(math.ceil(n / len(combinations))) for i in factors.permutation(len(combinations))]
    chosen = (combinations[i] for i in order[:n])
    return [Scene(o, c, b, seed=int(seeds.integers(2**62))) for o, c, b in chosen]


def main_colour(name: str, rng: np.random.Generator) -> Colour:
    hue = (HUES[name] + rng.uniform(-0.012, 0.012)) % 1.0
    brightness = rng.uniform(0.88, 1.0) if name == "yellow" else rng.uniform(0.78, 0.93)  # dark yellow is olive
    return rgb(*colorsys.hsv_to_rgb(hue, rng.uniform(0.76, 0.92), brightness))


def places(copies: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Place the copies of an object.

    Returns:
        (centre x, centre y, size) of each copy, farthest first. A single object fills about 0.6 of the frame; several
        are smaller, on a jittered grid.
    """
    if copies == 1:
        size = rng.uniform(0.56, 0.68)
        return [(rng.uniform(-0.09, 0.09), rng.uniform(0.30, 0.38) - size / 2, size)]
    columns = math.ceil(math.sqrt(copies))
    rows = math.ceil(copies / columns)
    slots = sorted(int(slot) for slot in rng.permutation(columns * rows)[:copies])
    size = 0.72 / columns
    spots = []
    for slot in slots:
        row, column = divmod(slot, columns)
        jitter_x, jitter_y = rng.uniform(-0.08, 0.08, 2) / columns
        spots.append(((column + 0.5) / columns - 0.5 + jitter_x, (row + 0.5) / rows - 0.5 + jitter_y, size))
    return spots


def paint_object(
    image: Canvas,
    scene: Scene,
    x: Grid,
    y: Grid,
    spot: tuple[float, float, float],
    rng: np.random.Generator,
) -> None:
    """Paint one copy of the scene's object onto ``image`` in place at ``spot`` = (centre x, centre y, size)."""
    centre_x, centre_y, size = spot
    pixel = 1.0 / min(x.shape)
    tilt, mirror = rng.uniform(-0.07, 0.07), rng.choice([-1.0, 1.0])
    colour = main_colour(scene.colour, rng)
    # Painting only the region that the object can cover is much faster than painting the whole image.
    extent = HALF_EXTENT * size + pixel
    rows = slice(*np.searchsorted(y[:, 0], (centre_y - extent, centre_y + extent)))
    columns = slice(*np.searchsorted(x[0], (centre_x - extent, centre_x + extent)))
    region, x, y = image[rows, columns], x[rows, columns], y[rows, columns]
    shadow = ellipse(x, y, centre_x, centre_y + 0.49 * size, 0.42 * size, 0.06 * size)
    paint(region, shadow, rgb(0.1, 0.1, 0.15), 0.02, 0.35)
    u, v = (x - centre_x) / size, (y - centre_y) / size
    local_x = np.float32(mirror) * (np.cos(tilt) * u + np.sin(tilt) * v).astype(np.float32)
    local_y = (-np.sin(tilt) * u + np.cos(tilt) * v).astype(np.float32)
    light = (1.06 - 0.20 * np.clip(local_y + 0.5, 0, 1))[..., None].astype(np.float32)
    for distance, layer_colour in OBJECT_LAYERS[scene.object](local_x, local_y, colour, rng):
        paint(region, distance, np.clip(layer_colour * light, 0, 1), pixel / size)


def render(scene: Scene, height: int, width: int) -> NDArray[np.uint8]:
    """Render a scene.

    Returns:
        (height, width, 3) uint8 RGB. The object scales with the short side; the background fills the long side.

    Raises:
        ValueError: the object, colour or background is unknown, or ``copies`` is below one.
    """
    for value, known in ((scene.object, OBJECTS), (scene.colour, COLOURS), (scene.background, BACKGROUNDS)):
        if value not in known:
            raise ValueError(f"unknown scene factor {value!r}: choose from {', '.join(known)}")
    if scene.copies < 1:
        raise ValueError(f"copies must be at least 1, got {scene.copies}")
    rng = np.random.default_rng(scene.seed)
    short = min(height, width)
    rows = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / short
    columns = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / short
    y, x = (grid.astype(np.float32) for grid in np.meshgrid(rows, columns, indexing="ij"))
    image = BACKGROUND_PAINTERS[scene.background](x, y, rng, float(rng.uniform(-0.02, 0.12)), 1.0 / short)
    image = np.ascontiguousarray(image, dtype=np.float32)
    for spot in places(scene.copies, rng):
        paint_object(image, scene, x, y, spot, rng)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def render_all(scenes: list[Scene], height: int, width: int) -> NDArray[np.uint8]:
    """Render ``scenes`` as one (N, height, width, 3) uint8 array."""
    return np.stack([render(scene, height, width) for scene in scenes])
