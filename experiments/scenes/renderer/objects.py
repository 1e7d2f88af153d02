"""The six objects, each a list of layers in a local frame.

In the local frame x points right and y points down; an object stands on y = 0.5 and spans about [-0.5, 0.5] along its
longer side. A layer is (signed distance, colour), and later layers cover earlier ones. ``main`` is the colour named in
the caption.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from experiments.scenes.renderer.shapes import Grid, box, ellipse, polygon, segment

Colour = NDArray[np.float32]
Layer = tuple[Grid, Colour]


def rgb(red: float, green: float, blue: float) -> Colour:
    return np.array([red, green, blue], dtype=np.float32)


CREAM, WHITE, INK = rgb(0.96, 0.90, 0.78), rgb(0.97, 0.97, 0.96), rgb(0.13, 0.12, 0.16)
WOOD, STEEL, GLASS = rgb(0.45, 0.29, 0.17), rgb(0.55, 0.57, 0.62), rgb(0.72, 0.88, 0.97)
LAMP = rgb(1.0, 0.93, 0.55)


def darker(colour: Colour, by: float = 0.72) -> Colour:
    return colour * np.float32(by)


def lighter(colour: Colour, by: float = 0.35) -> Colour:
    return colour + (1 - colour) * np.float32(by)


def mushroom(x: Grid, y: Grid, main: Colour, rng: np.random.Generator) -> list[Layer]:
    cap = np.maximum(ellipse(x, y, 0, 0.06, 0.5, 0.54), y - 0.08)
    shade = np.maximum(ellipse(x, y, 0, 0.06, 0.5, 0.54), np.abs(y - 0.04) - 0.04)
    spots = [(-0.24, -0.12, 0.085), (0.05, -0.27, 0.095), (0.28, -0.08, 0.075), (0.02, -0.03, 0.06)]
    layers = [
        (ellipse(x, y, 0, 0.10, 0.36, 0.07), darker(CREAM, 0.8)),
        (box(x, y, 0, 0.28, 0.14, 0.22, 0.09), CREAM),
        (box(x, y, 0.08, 0.30, 0.05, 0.18, 0.05), darker(CREAM, 0.86)),
        (cap, main),
        (shade, darker(main)),
    ]
    for cx, cy, radius in spots:
        size = radius * rng.uniform(0.8, 1.15)
        layers.append((ellipse(x, y, cx, cy, size, size * 0.85), WHITE))
    return layers


def house(x: Grid, y: Grid, main: Colour, rng: np.random.Generator) -> list[Layer]:
    roof_colour = rgb(0.36, 0.27, 0.26) * np.float32(rng.uniform(0.8, 1.1))
    layers = [
        (box(x, y, 0.24, -0.30, 0.06, 0.14), darker(roof_colour, 0.8)),
        (box(x, y, 0, 0.20, 0.38, 0.30), main),
        (box(x, y, 0.31, 0.20, 0.07, 0.30), darker(main)),
        (polygon(x, y, (-0.5, -0.07), (0.0, -0.5), (0.5, -0.07)), roof_colour),
        (box(x, y, 0, 0.33, 0.09, 0.17, 0.02), WOOD),
        (ellipse(x, y, 0.05, 0.34, 0.018, 0.018), LAMP),
    ]
    for cx in (-0.23, 0.22):
        layers += [
            (box(x, y, cx, 0.13, 0.095, 0.095), WHITE),
            (box(x, y, cx, 0.13, 0.07, 0.07), GLASS),
            (box(x, y, cx, 0.13, 0.012, 0.08), WHITE),
        ]
    return layers


def tree(x: Grid, y: Grid, main: Colour, rng: np.random.Generator) -> list[Layer]:
    layers = [
        (polygon(x, y, (-0.05, -0.1), (0.05, -0.1), (0.10, 0.5), (-0.10, 0.5)), WOOD),
        (segment(x, y, 0.0, 0.22, 0.17, 0.03, 0.028), WOOD),
    ]
    blobs = [(-0.22, 0.0, 0.20), (0.23, -0.02, 0.20), (0.0, -0.24, 0.25), (0.0, -0.02, 0.22)]
    blobs = [(cx + rng.uniform(-0.03, 0.03), cy, r * rng.uniform(0.92, 1.05)) for cx, cy, r in blobs]
    layers += [(ellipse(x, y, cx, cy, r, r), darker(main, 0.78)) for cx, cy, r in blobs]
    layers += [(ellipse(x, y, cx - 0.025, cy - 0.035, r * 0.86, r * 0.84), main) for cx, cy, r in blobs]
    layers += [
        (ellipse(x, y, cx - 0.07, cy - 0.09, r * 0.34, r * 0.30), lighter(main, 0.28)) for cx, cy, r in blobs[:3]
    ]
    return layers


def car(x: Grid, y: Grid, main: Colour, rng: np.random.Generator) -> list[Layer]:
    layers = [
        (polygon(x, y, (-0.22, -0.15), (0.14, -0.15), (0.33, 0.12), (-0.33, 0.12)), main),
        (polygon(x, y, (-0.19, -0.10), (-0.05, -0.10), (-0.05, 0.08), (-0.27, 0.08)), GLASS),
        (polygon(x, y, (0.0, -0.10), (0.12, -0.10), (0.25, 0.08), (0.0, 0.08)), GLASS),
        (box(x, y, 0, 0.22, 0.5, 0.14, 0.08), main),
        (box(x, y, 0, 0.32, 0.48, 0.045, 0.03), darker(main)),
        (box(x, y, -0.08, 0.15, 0.04, 0.012), darker(main, 0.5)),
        (ellipse(x, y, 0.45, 0.19, 0.04, 0.05), LAMP),
        (box(x, y, -0.48, 0.20, 0.02, 0.05, 0.01), rgb(0.75, 0.15, 0.12)),
    ]
    hub = rng.uniform(0.05, 0.07)
    for cx in (-0.28, 0.28):
        layers += [(ellipse(x, y, cx, 0.37, 0.13, 0.13), INK), (ellipse(x, y, cx, 0.37, hub, hub), STEEL)]
    return layers


def robot(x: Grid, y: Grid, main: Colour, rng: np.random.Generator) -> list[Layer]:
    gaze = rng.uniform(-0.015, 0.015)
    layers = [
        (segment(x, y, 0, -0.44, 0, -0.34, 0.014), STEEL),
        (ellipse(x, y, 0, -0.46, 0.04, 0.04), LAMP),
        (segment(x, y, -0.25, 0.06, -0.36, 0.26, 0.04), STEEL),
        (segment(x, y, 0.25, 0.06, 0.36, 0.26, 0.04), STEEL),
        (box(x, y, -0.12, 0.43, 0.065, 0.08, 0.01), STEEL),
        (box(x, y, 0.12, 0.43, 0.065, 0.08, 0.01), STEEL),
        (box(x, y, 0, -0.18, 0.26, 0.17, 0.05), main),
        (box(x, y, 0, 0.20, 0.24, 0.18, 0.04), main),
        (box(x, y, 0, 0.02, 0.08, 0.03), STEEL),
        (box(x, y, 0, 0.20, 0.15, 0.09, 0.02), darker(main, 0.62)),
        (ellipse(x, y, -0.06, 0.20, 0.032, 0.032), LAMP),
        (ellipse(x, y, 0.06, 0.20, 0.032, 0.032), GLASS),
        (box(x, y, 0, -0.09, 0.12, 0.022, 0.02), INK),
    ]
    for cx in (-0.11, 0.11):
        layers += [(ellipse(x, y, cx, -0.21, 0.07, 0.07), WHITE), (ellipse(x, y, cx + gaze, -0.21, 0.034, 0.034), INK)]
    return layers


def rocket(x: Grid, y: Grid, main: Colour, rng: np.random.Generator) -> list[Layer]:
    body = np.maximum(ellipse(x, y, 0, 0.02, 0.19, 0.54), y - 0.36)
    nose = np.maximum(ellipse(x, y, 0, 0.02, 0.19, 0.54), y + 0.26)
    side = np.maximum(body, 0.09 - x)
    window = rng.uniform(0.075, 0.09)
    return [
        (polygon(x, y, (-0.13, 0.12), (-0.13, 0.38), (-0.34, 0.5)), darker(main, 0.6)),
        (polygon(x, y, (0.13, 0.12), (0.34, 0.5), (0.13, 0.38)), darker(main, 0.6)),
        (polygon(x, y, (-0.09, 0.35), (0.09, 0.35), (0.13, 0.47), (-0.13, 0.47)), STEEL),
        (body, main),
        (side, darker(main, 0.8)),
        (nose, WHITE),
        (box(x, y, 0, 0.24, 0.165, 0.02), WHITE),
        (ellipse(x, y, 0, -0.08, window + 0.03, window + 0.03), STEEL),
        (ellipse(x, y, 0, -0.08, window, window), GLASS),
        (ellipse(x, y, -0.025, -0.11, 0.022, 0.022), WHITE),
    ]


OBJECT_LAYERS: dict[str, Callable[[Grid, Grid, Colour, np.random.Generator], list[Layer]]] = {
    "mushroom": mushroom,
    "house": house,
    "tree": tree,
    "car": car,
    "robot": robot,
    "rocket": rocket,
}
