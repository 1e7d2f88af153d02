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
from experiments.scenes.renderer.frame import Colour, Frame, rgb
from experiments.scenes.renderer.objects import OBJECT_LAYERS
from experiments.scenes.renderer.shapes import Grid, covered, ellipse, window

OBJECTS = tuple(OBJECT_LAYERS)
HUES = {"red": 0.995, "orange": 0.075, "yellow": 0.145, "green": 0.37, "blue": 0.61, "purple": 0.77}
COLOURS = tuple(HUES)
HALF_EXTENT = 0.68  # half the side of a square that contains any object of size one, tilted, with its shadow
BACKGROUNDS = tuple(BACKGROUND_PAINTERS)
PLACE = {"meadow": "in a meadow", "desert": "in a desert", "snow": "in the snow", "beach": "on a beach"}


@dataclass(frozen=True)
class Scene:
    """Contents of one image. ``seed`` determines everything that the caption does not mention.

    The diffusion model sees single objects, and close-ups of them: crops of ``1 / zoom`` of the frame's sides around
    the object. Scenes with ``copies`` > 1 are there to train and to check the counter: side by side, or ``crowded``,
    in rows, stacks and heaps that overlap, as samplers draw them.
    """

    object: str
    colour: str
    background: str
    seed: int
    copies: int = 1
    zoom: float = 1.0
    crowded: bool = False

    @property
    def caption(self) -> str:
        article = "an" if self.colour[0] in "aeiou" else "a"
        view = "close up of " if self.zoom > 1 else ""
        return f"{view}{article} {self.colour} {self.object} {PLACE[self.background]}"


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
        (centre x, centre y, size) of each copy, in units of the short side. A single object fills 0.45 to 0.8 of the
        frame; several are smaller, on a jittered grid, and may overlap.
    """
    if copies == 1:
        size = rng.uniform(0.45, 0.80)
        bottom = min(0.46, rng.uniform(0.28, 0.36) + 0.2 * max(0.0, size - 0.5))
        sideways = 0.5 * max(0.0, 0.92 - size)
        return [(rng.uniform(-sideways, sideways) * 0.8, bottom - size / 2, size)]
    columns = math.ceil(math.sqrt(copies))
    rows = math.ceil(copies / columns)
    slots = sorted(int(slot) for slot in rng.permutation(columns * rows)[:copies])
    spots = []
    for slot in slots:
        row, column = divmod(slot, columns)
        size = rng.uniform(0.55, 0.95) / columns
        jitter_x, jitter_y = rng.uniform(-0.12, 0.12, 2) / columns
        spots.append(((column + 0.5) / columns - 0.5 + jitter_x, (row + 0.5) / rows - 0.5 + jitter_y, size))
    return spots


def crowd(copies: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Place the copies of an object in groups anywhere in the frame: rows, stacks, heaps and some that stand alone.

    Returns:
        (centre x, centre y, size) of each copy, as from `places`, from top to bottom. No two centres are closer than
        0.45 of the larger one's size, unless the frame is full.
    """
    usual = rng.uniform(0.6, 1.3) / max(2.0, math.sqrt(copies))
    spots: list[tuple[float, float, float]] = []
    while len(spots) < copies:
        size = float(np.clip(usual * math.exp(rng.normal(0, 0.3)), 0.06, 0.6))
        members = min(copies - len(spots), int(rng.choice([1, 1, 2, 3, 4, 6])))
        angle = rng.choice([0.0, 0.5, rng.uniform(0, 1)]) * math.pi + rng.normal(0, 0.1)  # a row, a stack, a heap
        x, y = rng.uniform(-0.47, 0.47, 2)
        for _ in range(members):
            for _ in range(20):  # as far from all others as a look can tell them apart, if there is room
                apart = all(math.hypot(x - a, y - b) > 0.45 * max(size, c) for a, b, c in spots)
                if apart and max(abs(x), abs(y)) < 0.5:
                    break
                x, y = rng.uniform(-0.47, 0.47, 2)
            spots.append((float(x), float(y), size))
            step = rng.uniform(0.45, 0.85) * size
            x, y = x + step * math.cos(angle), y + step * math.sin(angle)
            size *= rng.uniform(0.85, 1.15)
    return sorted(spots, key=lambda spot: spot[1] + spot[2] / 2)


def placement(scene: Scene) -> tuple[float, list[tuple[float, float, float]]]:
    """The horizon's height, and (centre x, centre y, size) of each object, farthest first.

    The frame's centre is (0, 0) and its short side 1, before any zoom.
    """
    rng = np.random.default_rng([scene.seed, 1])
    horizon = float(rng.uniform(-0.02, 0.12))
    return horizon, (crowd if scene.crowded else places)(scene.copies, rng)


def paint_object(
    image: Canvas, scene: Scene, x: Grid, y: Grid, spot: tuple[float, float, float], pixel: float, index: int
) -> None:
    """Paint copy number ``index`` of the scene's object onto ``image`` in place at ``spot``."""
    centre_x, centre_y, size = spot
    rng = np.random.default_rng([scene.seed, 2, index])
    tilt, mirror = rng.uniform(-0.07, 0.07), np.float32(rng.choice([-1.0, 1.0]))
    colour = main_colour(scene.colour, rng)
    # Painting only the region that the object can cover is much faster than painting the whole image.
    extent = HALF_EXTENT * size + pixel
    here = window(x, y, centre_x, centre_y, extent, extent)
    region, x, y = image[here], x[here], y[here]
    if not region.size:
        return
    shadow = ellipse(x, y, centre_x + 0.06 * size, centre_y + 0.49 * size, 0.46 * size, 0.065 * size)
    paint(region, shadow, rgb(0.1, 0.1, 0.15), 0.05 * size + pixel, 0.38)
    u, v = ((x - centre_x) / size).astype(np.float32), ((y - centre_y) / size).astype(np.float32)
    local_x = mirror * (np.cos(tilt) * u + np.sin(tilt) * v).astype(np.float32)
    local_y = (-np.sin(tilt) * u + np.cos(tilt) * v).astype(np.float32)
    frame = Frame(local_x, local_y, (u, v), tilt, float(mirror), pixel / size, rng)
    light = (1.05 - 0.16 * np.clip(local_y + 0.5, 0, 1))[..., None].astype(np.float32)
    for mask, layer_colour in OBJECT_LAYERS[scene.object](frame, colour):
        part = covered(mask)
        shown = layer_colour[part] if layer_colour.ndim == 3 else layer_colour
        region[part] += mask[part][..., None] * (np.clip(shown * light[part], 0, 1) - region[part])


def coordinates(scene: Scene, height: int, width: int) -> tuple[Grid, Grid, float]:
    """x and y (H, W) of the pixels' centres, and the side of a pixel."""
    pixel = 1.0 / min(height, width) / scene.zoom
    centre_x = centre_y = 0.0
    if scene.zoom > 1:
        spot_x, spot_y, size = placement(scene)[1][0]
        away = np.random.default_rng([scene.seed, 3]).uniform(-0.3, 0.3, 2) * size
        room = 0.5 - 0.5 / scene.zoom
        centre_x, centre_y = (float(np.clip(c, -room, room)) for c in (spot_x + away[0], spot_y + away[1]))
    rows = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) * pixel + centre_y
    columns = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) * pixel + centre_x
    y, x = (grid.astype(np.float32) for grid in np.meshgrid(rows, columns, indexing="ij"))
    return x, y, pixel


def render(scene: Scene, height: int, width: int) -> NDArray[np.uint8]:
    """Render a scene.

    Returns:
        (height, width, 3) uint8 RGB. The object scales with the short side; the background fills the long side.

    Raises:
        ValueError: the object, colour or background is unknown, or ``copies`` or ``zoom`` is below one.
    """
    for value, known in ((scene.object, OBJECTS), (scene.colour, COLOURS), (scene.background, BACKGROUNDS)):
        if value not in known:
            raise ValueError(f"unknown scene factor {value!r}: choose from {', '.join(known)}")
    if scene.copies < 1 or scene.zoom < 1:
        raise ValueError(f"copies and zoom must be at least 1, got {scene.copies} and {scene.zoom}")
    horizon, spots = placement(scene)
    x, y, pixel = coordinates(scene, height, width)
    rng = np.random.default_rng([scene.seed, 4])
    image = BACKGROUND_PAINTERS[scene.background](x, y, rng, horizon, pixel)
    image = np.ascontiguousarray(image, dtype=np.float32)
    for index, spot in enumerate(spots):
        paint_object(image, scene, x, y, spot, pixel, index)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def render_all(scenes: list[Scene], height: int, width: int) -> NDArray[np.uint8]:
    """Render ``scenes`` as one (N, height, width, 3) uint8 array."""
    return np.stack([render(scene, height, width) for scene in scenes])
