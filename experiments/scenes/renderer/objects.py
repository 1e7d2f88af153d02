"""The six objects, each a list of layers in its `Frame`. ``main`` is the colour named in the caption.

Every object has parts at several scales: its silhouette, parts that the training size just resolves, and parts that
only a larger image can show (gills, bricks, tiles, leaves, spokes, rivets).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from experiments.scenes.renderer import shapes
from experiments.scenes.renderer.frame import Colour, Frame, Layer, rgb
from experiments.scenes.renderer.shapes import Grid

CREAM, WHITE, INK = rgb(0.96, 0.90, 0.78), rgb(0.97, 0.97, 0.96), rgb(0.13, 0.12, 0.16)
WOOD, STEEL, GLASS = rgb(0.45, 0.29, 0.17), rgb(0.55, 0.57, 0.62), rgb(0.70, 0.87, 0.97)
LAMP = rgb(1.0, 0.93, 0.55)


def darker(colour: Colour, by: float = 0.72) -> Colour:
    return colour * np.float32(by)


def lighter(colour: Colour, by: float = 0.35) -> Colour:
    return colour + (1 - colour) * np.float32(by)


def mushroom(f: Frame, main: Colour) -> list[Layer]:
    whole = shapes.ellipse(f.x, f.y, 0, 0.06, 0.5, 0.54)
    fibres = f.shaded(f.rounded(CREAM, 0, 0.3, 0.16, 0.9), 0.05 * f.noise(0.25, 0.12))
    gills = f.line(shapes.periodic(f.x / (1.2 - 2 * f.y), 0.035), 0.012) * f.ellipse(0, 0.10, 0.40, 0.075)
    layers = [
        (f.ellipse(0, 0.10, 0.42, 0.08), darker(CREAM, 0.80)),
        (gills, darker(CREAM, 0.58)),
        (f.box(0, 0.28, 0.14, 0.22, 0.09), fibres),
        (f.ellipse(0, 0.19, 0.175, 0.035), darker(CREAM, 0.92)),
        (f.fill(np.maximum(whole, f.y - 0.08)), f.shaded(f.rounded(main, 0, 0, 0.6, 0.5), 0.03 * f.noise(0.06))),
        (f.fill(np.maximum(whole, np.abs(f.y - 0.055) - 0.025)), darker(main)),
    ]
    for cx, cy, radius in [(-0.24, -0.12, 0.085), (0.05, -0.27, 0.095), (0.28, -0.08, 0.075), (0.02, -0.03, 0.06)]:
        size = radius * f.rng.uniform(0.8, 1.15)
        layers.append((f.ellipse(cx, cy, size, size * 0.85), f.rounded(WHITE, cx, cy, 2 * size, 2 * size)))
    small = [(-0.40, -0.02), (-0.10, -0.32), (-0.12, -0.16), (0.17, -0.15), (0.36, 0.02), (0.25, -0.26), (-0.3, 0.01)]
    layers.append((f.dots(small, 0.016), WHITE))
    return layers


def masonry(f: Frame, height: float, length: float, joint: float) -> Grid:
    """Joints between courses of bricks or tiles, every second course shifted by half a brick."""
    course = np.floor(f.y / height)
    upright = f.line(shapes.periodic(f.x + (course % 2) * np.float32(length / 2), length), joint)
    return np.maximum(f.line(shapes.periodic(f.y, height), joint), upright)


def house(f: Frame, main: Colour) -> list[Layer]:
    roof_colour = rgb(0.38, 0.28, 0.26) * np.float32(f.rng.uniform(0.85, 1.1))
    wall, roof = f.box(0, 0.20, 0.38, 0.30), f.polygon((-0.5, -0.07), (0.0, -0.5), (0.5, -0.07))
    plaster = f.shaded(main, 0.05 * f.noise(0.08) - 0.12 * np.clip(2 * f.x, -0.5, 1))
    grain = 0.12 * f.noise(0.2, 0.15)
    chimney = f.box(0.24, -0.30, 0.06, 0.14)
    layers = [
        (chimney, darker(roof_colour, 0.85)),
        (chimney * masonry(f, 0.045, 0.06, 0.008), darker(roof_colour, 0.6)),
        (wall, plaster),
        (wall * masonry(f, 0.06, 0.12, 0.009), darker(main, 0.70)),
        (wall * f.box(0, -0.05, 0.4, 0.05), darker(main, 0.62)),
        (roof, f.shaded(roof_colour, 0.06 * f.noise(0.05))),
        (roof * masonry(f, 0.05, 0.07, 0.010), darker(roof_colour, 0.72)),
        (f.box(0, 0.33, 0.105, 0.18, 0.02), darker(WOOD, 0.6)),
        (f.box(0, 0.335, 0.09, 0.165, 0.02), f.shaded(WOOD, grain)),
        (f.box(0, 0.335, 0.09, 0.165) * f.line(shapes.periodic(f.x, 0.045), 0.006), darker(WOOD, 0.7)),
        (f.ellipse(0.055, 0.34, 0.018, 0.018), LAMP),
    ]
    for cx in (-0.23, 0.22):
        pane = f.shaded(GLASS, np.clip(-1.5 * (f.x - cx + f.y - 0.13), -0.12, 0.12))
        layers += [
            (f.box(cx, 0.13, 0.095, 0.095), WHITE),
            (f.box(cx, 0.13, 0.072, 0.072), pane),
            (f.box(cx, 0.13, 0.010, 0.08), WHITE),
            (f.box(cx, 0.13, 0.08, 0.010), WHITE),
            (f.box(cx, 0.235, 0.11, 0.014), darker(WHITE, 0.8)),
        ]
    return layers


def tree(f: Frame, main: Colour) -> list[Layer]:
    bark = f.shaded(f.rounded(WOOD, 0, 0.2, 0.15, 0.9), 0.14 * f.noise(0.16, 0.2))
    layers = [
        (f.polygon((-0.05, -0.1), (0.05, -0.1), (0.10, 0.5), (-0.10, 0.5)), bark),
        (f.segment(0.0, 0.22, 0.17, 0.03, 0.028), bark),
    ]
    blobs = [(-0.22, 0.0, 0.20), (0.23, -0.02, 0.20), (0.0, -0.24, 0.25), (0.0, -0.02, 0.22)]
    blobs = [(cx + f.rng.uniform(-0.03, 0.03), cy, r * f.rng.uniform(0.92, 1.05)) for cx, cy, r in blobs]
    leaves, ragged = f.noise(0.045, roughness=0.8), 0.022 * f.noise(0.06, roughness=0.75)

    def crown(cx: float, cy: float, r: float) -> Grid:
        return f.fill((shapes.ellipse(f.x, f.y, cx, cy, r, r) + ragged).astype(np.float32))

    layers += [(crown(cx, cy, r), f.shaded(main, 0.13 * leaves - 0.24)) for cx, cy, r in blobs]
    layers += [
        (crown(cx - 0.025, cy - 0.035, r * 0.85), f.shaded(main, 0.13 * leaves - 0.3 * (f.y - cy) - 0.02))
        for cx, cy, r in blobs
    ]
    layers += [
        (crown(cx - 0.07, cy - 0.09, r * 0.36), f.shaded(lighter(main, 0.22), 0.13 * leaves))
        for cx, cy, r in blobs[:3]
    ]
    return layers


def car(f: Frame, main: Colour) -> list[Layer]:
    paint = f.shaded(main, np.clip(0.10 - 0.5 * (f.y - 0.1), -0.2, 0.18))
    glass = f.shaded(GLASS, np.clip(-1.2 * (f.x + f.y), -0.2, 0.15))
    body = f.box(0, 0.22, 0.5, 0.14, 0.08)
    layers = [
        (f.polygon((-0.22, -0.15), (0.14, -0.15), (0.33, 0.12), (-0.33, 0.12)), paint),
        (f.polygon((-0.19, -0.10), (-0.05, -0.10), (-0.05, 0.08), (-0.27, 0.08)), glass),
        (f.polygon((0.0, -0.10), (0.12, -0.10), (0.25, 0.08), (0.0, 0.08)), glass),
        (body, paint),
        (body * f.line(f.y - 0.17, 0.012), lighter(main, 0.45)),
        (f.box(0, 0.32, 0.48, 0.045, 0.03), darker(main)),
        (body * f.line(f.x + 0.025, 0.010), darker(main, 0.6)),
        (body * f.line(f.x + 0.26, 0.010), darker(main, 0.6)),
        (f.box(-0.08, 0.15, 0.04, 0.012), darker(main, 0.5)),
        (f.ellipse(0.45, 0.19, 0.04, 0.05), LAMP),
        (f.box(-0.48, 0.20, 0.02, 0.05, 0.01), rgb(0.75, 0.15, 0.12)),
        (f.box(0.46, 0.285, 0.035, 0.022) * f.line(shapes.periodic(f.x, 0.018), 0.007), INK),
    ]
    spokes = int(f.rng.integers(5, 8))
    for cx in (-0.28, 0.28):
        angle, radius = np.arctan2(f.y - 0.37, f.x - cx), np.hypot(f.x - cx, f.y - 0.37)
        around = shapes.periodic(angle, 2 * np.pi / spokes) * radius
        treads = f.line((shapes.periodic(angle, 2 * np.pi / 28) * radius).astype(np.float32), 0.010)
        layers += [
            (f.ellipse(cx, 0.37, 0.13, 0.13), INK),
            (f.ellipse(cx, 0.37, 0.13, 0.13) * (1 - f.ellipse(cx, 0.37, 0.112, 0.112)) * treads, lighter(INK, 0.3)),
            (f.ellipse(cx, 0.37, 0.082, 0.082), darker(STEEL, 0.55)),
            (f.ellipse(cx, 0.37, 0.078, 0.078) * f.line(around.astype(np.float32), 0.020), lighter(STEEL)),
            (f.ellipse(cx, 0.37, 0.026, 0.026), lighter(STEEL, 0.5)),
        ]
    return layers


def edge_dots(cx: float, cy: float, half_width: float, half_height: float, n: int) -> list[tuple[float, float]]:
    """Places along the edges of a rectangle, ``n`` a side."""
    steps = np.linspace(-1, 1, n)
    across = [(cx + s * half_width, cy + side * half_height) for s in steps for side in (-1, 1)]
    return across + [(cx + side * half_width, cy + s * half_height) for s in steps[1:-1] for side in (-1, 1)]


def robot(f: Frame, main: Colour) -> list[Layer]:
    gaze = f.rng.uniform(-0.015, 0.015)
    brushed = 0.035 * f.noise(0.02, 8.0)
    paint = f.shaded(main, brushed + np.clip(0.08 - 0.45 * f.x, -0.16, 0.14))
    metal = f.shaded(STEEL, 2 * brushed)
    joints = [f.line(shapes.periodic(f.y, 0.035), 0.010)] * 2
    layers = [
        (f.segment(0, -0.44, 0, -0.34, 0.014), STEEL),
        (f.ellipse(0, -0.46, 0.04, 0.04), f.rounded(LAMP, 0, -0.46, 0.06, 0.06)),
        (f.segment(-0.25, 0.06, -0.36, 0.26, 0.045), metal),
        (f.segment(0.25, 0.06, 0.36, 0.26, 0.045), metal),
        (f.segment(-0.25, 0.06, -0.36, 0.26, 0.045) * joints[0], darker(STEEL, 0.55)),
        (f.segment(0.25, 0.06, 0.36, 0.26, 0.045) * joints[1], darker(STEEL, 0.55)),
        (f.box(-0.12, 0.43, 0.07, 0.08, 0.01), metal),
        (f.box(0.12, 0.43, 0.07, 0.08, 0.01), metal),
        (f.box(0, 0.02, 0.08, 0.03), darker(STEEL, 0.75)),
        (f.box(0, -0.18, 0.26, 0.17, 0.05), paint),
        (f.box(0, 0.20, 0.24, 0.18, 0.04), paint),
        (f.dots(edge_dots(0, -0.18, 0.225, 0.135, 7), 0.009), darker(main, 0.55)),
        (f.dots(edge_dots(0, 0.20, 0.205, 0.15, 7), 0.009), darker(main, 0.55)),
        (f.box(0, 0.20, 0.15, 0.09, 0.02), darker(main, 0.58)),
        (f.ellipse(-0.06, 0.18, 0.034, 0.034), LAMP),
        (f.ellipse(0.06, 0.18, 0.034, 0.034), GLASS),
        (f.box(0, 0.255, 0.12, 0.02) * f.line(shapes.periodic(f.x, 0.024), 0.012), STEEL),
        (f.box(0, -0.09, 0.13, 0.026, 0.02), INK),
        (f.box(0, -0.09, 0.12, 0.018) * f.line(shapes.periodic(f.x, 0.03), 0.012), WHITE),
    ]
    for cx in (-0.11, 0.11):
        layers += [
            (f.ellipse(cx, -0.21, 0.075, 0.075), darker(STEEL, 0.7)),
            (f.ellipse(cx, -0.21, 0.066, 0.066), WHITE),
            (f.ellipse(cx + gaze, -0.21, 0.034, 0.034), INK),
            (f.ellipse(cx + gaze - 0.01, -0.222, 0.010, 0.010), WHITE),
        ]
    return layers


def rocket(f: Frame, main: Colour) -> list[Layer]:
    hull = shapes.ellipse(f.x, f.y, 0, 0.02, 0.19, 0.54)
    body, nose = f.fill(np.maximum(hull, f.y - 0.36)), f.fill(np.maximum(hull, f.y + 0.26))
    window = f.rng.uniform(0.075, 0.09)
    curved = np.clip(0.12 - 1.1 * f.x - 3.0 * f.x * f.x, -0.3, 0.14)
    sheet = 0.03 * f.noise(0.05, 0.4)
    bolts = [(np.cos(a) * (window + 0.016), np.sin(a) * (window + 0.016) - 0.08) for a in np.arange(12) * np.pi / 6]
    seams = f.line(shapes.periodic(f.y, 0.12, 0.06), 0.008)
    rivets = [(x, y + d) for y in (-0.18, 0.06, 0.18, 0.30) for x in np.linspace(-0.14, 0.14, 8) for d in (-0.018,)]
    return [
        (f.polygon((-0.13, 0.12), (-0.13, 0.38), (-0.34, 0.5)), darker(main, 0.64)),
        (f.polygon((0.13, 0.12), (0.34, 0.5), (0.13, 0.38)), darker(main, 0.52)),
        (f.polygon((-0.09, 0.35), (0.09, 0.35), (0.13, 0.47), (-0.13, 0.47)), f.shaded(STEEL, curved)),
        (
            f.polygon((-0.09, 0.35), (0.09, 0.35), (0.13, 0.47), (-0.13, 0.47))
            * f.line(shapes.periodic(f.x, 0.035), 0.012),
            darker(STEEL, 0.5),
        ),
        (body, f.shaded(main, curved + sheet)),
        (body * seams, darker(main, 0.62)),
        (body * f.dots(rivets, 0.008), darker(main, 0.55)),
        (nose, f.shaded(WHITE, curved + sheet)),
        (f.box(0, 0.24, 0.165, 0.022), f.shaded(WHITE, curved)),
        (f.ellipse(0, -0.08, window + 0.032, window + 0.032), STEEL),
        (f.dots(bolts, 0.008), darker(STEEL, 0.45)),
        (f.ellipse(0, -0.08, window, window), f.rounded(GLASS, 0, -0.08, window * 1.5, window * 1.5)),
        (f.segment(-0.035, -0.10, -0.01, -0.13, 0.010), WHITE),
    ]


OBJECT_LAYERS: dict[str, Callable[[Frame, Colour], list[Layer]]] = {
    "mushroom": mushroom,
    "house": house,
    "tree": tree,
    "car": car,
    "robot": robot,
    "rocket": rocket,
}
