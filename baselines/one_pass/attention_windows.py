"""A feature map's tokens in 2x2 windows, for HiDiffusion's self-attention."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def window_of(size: tuple[int, int]) -> tuple[int, int]:
    """Size of each of 2x2 windows over a feature map, rounded up."""
    return -(-size[0] // 2), -(-size[1] // 2)


def to_windows(x: Tensor, size: tuple[int, int], quarters: int) -> Tensor:
    """(N, rows * columns, C) tokens to (4 N, a * b, C), the windows of a sample from left to right, then down. A map
    with an odd side is resized to the even size above it.

    Args:
        x: tokens, row by row.
        size: (rows, columns).
        quarters: of a window by which the map is shifted first, cyclically.
    """
    a, b = window_of(size)
    grid = x.unflatten(1, size)
    if size != (2 * a, 2 * b):
        grid = resized_tokens(grid, (2 * a, 2 * b))
    grid = torch.roll(grid, (-quarters * (a // 4), -quarters * (b // 4)), dims=(1, 2))
    return grid.unflatten(2, (2, b)).unflatten(1, (2, a)).transpose(2, 3).flatten(3, 4).flatten(0, 2)


def from_windows(x: Tensor, size: tuple[int, int], quarters: int) -> Tensor:
    """The inverse of `to_windows`."""
    a, b = window_of(size)
    grid = x.unflatten(1, (a, b)).unflatten(0, (-1, 2, 2)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    grid = torch.roll(grid, (quarters * (a // 4), quarters * (b // 4)), dims=(1, 2))
    return (grid if size == (2 * a, 2 * b) else resized_tokens(grid, size)).flatten(1, 2)


def resized_tokens(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, rows, columns, C), bicubic."""
    return F.interpolate(grid.movedim(-1, 1), size, mode="bicubic").movedim(1, -1)
