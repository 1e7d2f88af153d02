"""The local frame that an object is drawn in.

In it x points right and y points down; an object stands on y = 0.5 and spans about [-0.5, 0.5] along its longer side.
A layer is (mask, colour): the share of each pixel that it covers and its colour, one for all or one for each pixel;
later layers cover earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.scenes.renderer import shapes
from experiments.scenes.renderer.shapes import Grid

Colour = NDArray[np.float32]  # (3,) or (H, W, 3)
Layer = tuple[Grid, Colour]


def rgb(red: float, green: float, blue: float) -> Colour:
    return np.array([red, green, blue], dtype=np.float32)


@dataclass(frozen=True)
class Frame:
    """Coordinates (H, W), the pixel side in their units, and shapes drawn on them."""

    x: Grid
    y: Grid
    plain: tuple[Grid, Grid]  # the coordinates before the object was tilted, parallel to the image's axes
    tilt: float  # radians
    mirror: float  # -1 if x points left
    pixel: float
    rng: np.random.Generator

    def fill(self, distance: Grid) -> Grid:
        return shapes.coverage(distance, self.pixel)

    def window(self, cx: float, cy: float, half_width: float, half_height: float) -> tuple[slice, slice]:
        """Rows and columns that contain a box of this frame, with four pixels around it: the corners of a polygon."""
        cos, sin = float(np.cos(self.tilt)), float(np.sin(self.tilt))
        across, margin = self.mirror * cx, 4 * self.pixel
        return shapes.window(
            *self.plain,
            cos * across - sin * cy,
            sin * across + cos * cy,
            cos * half_width + abs(sin) * half_height + margin,
            abs(sin) * half_width + cos * half_height + margin,
        )

    def drawn(self, here: tuple[slice, slice], shape: Callable[[Grid, Grid], Grid]) -> Grid:
        """The mask of ``shape``, a signed distance of (x, y), that is empty outside a window."""
        inside = self.fill(shape(self.x[here], self.y[here]))
        mask = np.zeros(self.x.shape, inside.dtype)
        mask[here] = inside
        return mask

    def ellipse(self, cx: float, cy: float, rx: float, ry: float) -> Grid:
        blur = 1 + self.pixel / min(rx, ry)  # the distance is exact on the axes alone
        here = self.window(cx, cy, rx * blur, ry * blur)
        return self.drawn(here, lambda x, y: shapes.ellipse(x, y, cx, cy, rx, ry))

    def box(self, cx: float, cy: float, half_width: float, half_height: float, corner: float = 0.0) -> Grid:
        here = self.window(cx, cy, half_width, half_height)
        return self.drawn(here, lambda x, y: shapes.box(x, y, cx, cy, half_width, half_height, corner))

    def polygon(self, *corners: tuple[float, float]) -> Grid:
        (left, top), (right, bottom) = (map(extreme, *corners) for extreme in (min, max))
        here = self.window((left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2)
        return self.drawn(here, lambda x, y: shapes.polygon(x, y, *corners))

    def segment(self, ax: float, ay: float, bx: float, by: float, radius: float) -> Grid:
        half_width, half_height = abs(bx - ax) / 2 + radius, abs(by - ay) / 2 + radius
        here = self.window((ax + bx) / 2, (ay + by) / 2, half_width, half_height)
        return self.drawn(here, lambda x, y: shapes.segment(x, y, ax, ay, bx, by, radius))

    def line(self, distance: Grid, width: float) -> Grid:
        return shapes.line(distance, width, self.pixel)

    def dots(self, places: list[tuple[float, float]], radius: float) -> Grid:
        """Small discs, such as rivets."""
        mask = np.zeros_like(self.x)
        for cx, cy in places:
            here = self.window(cx, cy, radius, radius)
            disc = self.line(np.hypot(self.x[here] - cx, self.y[here] - cy).astype(np.float32), 2 * radius)
            mask[here] = np.maximum(mask[here], disc)
        return mask

    def noise(self, cell: float, stretch: float = 1.0, roughness: float = 0.6) -> Grid:
        seed = int(self.rng.integers(2**32))
        return shapes.noise(*self.plain, seed, cell, self.pixel, stretch, roughness)

    def shaded(self, colour: Colour, shade: NDArray[np.floating]) -> Colour:
        """``colour`` made brighter or darker: by a share ``shade`` (H, W), 0 for no change."""
        return colour * (1 + shade)[..., None].astype(np.float32)

    def rounded(self, colour: Colour, cx: float, cy: float, rx: float, ry: float) -> Colour:
        """``colour`` on a round body lit from above and from the left."""
        u, v = (self.x - cx) / rx, (self.y - cy) / ry
        return self.shaded(colour, np.clip(0.10 - 0.16 * u - 0.14 * v - 0.10 * (u * u + v * v), -0.4, 0.2))
