"""Crops of the training size at random offsets from a grid of windows, each image of a batch with offsets of its own.

Offsets that change from step to step leave no seams between windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from baselines.windows import Windows

Corner = tuple[int, int]


def offset(start: int, side: int, window: int, most: int, share: float) -> int:
    """Offset of a window by at most ``most``: away from a border that it touches not at all, beyond it or along it.

    ``share``, from 0 to below 1, chooses one of the possible offsets.
    """
    low = 0 if start + window == side else -most
    high = 0 if start == 0 else most
    return low + int(share * (high - low + 1))


def jittered(windows: Windows, most: Corner, generator: torch.Generator) -> tuple[Corner, ...]:
    """Corners of all windows, moved by up to ``most`` rows and columns and by up to as much over a border."""
    shares = torch.rand(len(windows), 2, dtype=torch.float64, generator=generator).tolist()
    return tuple(
        (
            top + offset(top, windows.rows, windows.height, most[0], vertical),
            left + offset(left, windows.columns, windows.width, most[1], horizontal),
        )
        for (top, left), (vertical, horizontal) in zip(windows.corners, shares, strict=True)
    )


@dataclass(frozen=True)
class Crops:
    """Crops of ``height`` x ``width`` latent pixels for a batch.

    Args:
        height, width: of a crop.
        margin: (rows, columns) by which a crop may lie over the latent's border, where it holds zeros.
        corners: (top, left) of each image's crops in its latent.
    """

    height: int
    width: int
    margin: Corner
    corners: tuple[tuple[Corner, ...], ...]

    def place(self, x: Tensor, image: int, index: int) -> Tensor:
        """The part of the padded (halves, images, C, rows, columns) that crop ``index`` of an image covers."""
        top, left = (corner + edge for corner, edge in zip(self.corners[image][index], self.margin, strict=True))
        return x[:, image, :, top : top + self.height, left : left + self.width]

    def cut(self, x: Tensor) -> list[Tensor]:
        """Crops of (N, C, rows, columns), each (N, C, height, width); N is the images, once or twice over."""
        rows, columns = self.margin
        padded = functional.pad(x, (columns, columns, rows, rows)).unflatten(0, (-1, len(self.corners)))
        images, count = range(len(self.corners)), range(len(self.corners[0]))
        return [torch.stack([self.place(padded, n, index) for n in images], 1).flatten(0, 1) for index in count]

    def average(self, parts: Sequence[Tensor], rows: int, columns: int) -> Tensor:
        """All crops' (N, C, height, width) -> (N, C, rows, columns), the mean wherever they overlap."""
        images, first = len(self.corners), parts[0]
        size = (rows + 2 * self.margin[0], columns + 2 * self.margin[1])
        total = first.new_zeros(len(first) // images, images, first.shape[1], *size)
        count = first.new_zeros(1, images, 1, *size)
        for index, part in enumerate(parts):
            for image, values in enumerate(part.unflatten(0, (-1, images)).unbind(1)):
                self.place(total, image, index).add_(values)
                self.place(count, image, index).add_(1)
        mean = (total / count).flatten(0, 1)
        return mean[..., self.margin[0] : self.margin[0] + rows, self.margin[1] : self.margin[1] + columns]
