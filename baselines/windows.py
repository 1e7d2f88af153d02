"""Windows of the training size over a larger latent: where they lie, cutting them out, and averaging over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def positions(size: int, window: int, stride: int, circular: bool = False) -> list[int]:
    """Starts of the windows along one side, such that every cell is covered.

    The last window is moved inwards to end at the border; on a circle windows start at every stride and run over it.
    """
    if circular and size > window:
        return list(range(0, size, stride))
    starts = list(range(0, size - window + 1, stride))
    return starts if starts[-1] + window == size else [*starts, size - window]


@dataclass(frozen=True)
class Windows:
    """Windows of ``height`` x ``width`` cells on a (..., rows, columns) map, starting at ``corners`` (top, left).

    Columns run over the right border to the left one.
    """

    rows: int
    columns: int
    height: int
    width: int
    corners: tuple[tuple[int, int], ...]

    @classmethod
    def cover(
        cls, rows: int, columns: int, height: int, width: int, stride: tuple[int, int], circular: bool
    ) -> Windows:
        """Windows that cover the map; ValueError if a window is larger than the map, or the stride than a window."""
        if height > rows or width > columns:
            raise ValueError(
                f"a window of {height}x{width} cells is larger than the latent of {rows}x{columns}: "
                "ask for a larger size"
            )
        for step, side in zip(stride, (height, width), strict=True):
            if not 1 <= step <= side:
                raise ValueError(
                    f"the stride must be 1 to {side} cells, a window's side, not {step}: cells would be left out"
                )
        tops, lefts = positions(rows, height, stride[0]), positions(columns, width, stride[1], circular)
        return cls(rows, columns, height, width, tuple((top, left) for top in tops for left in lefts))

    def __len__(self) -> int:
        return len(self.corners)

    def columns_of(self, index: int, device: torch.device) -> Tensor:
        return (self.corners[index][1] + torch.arange(self.width, device=device)) % self.columns

    def cut(self, x: Tensor, index: int) -> Tensor:
        """Window ``index`` of (N, C, rows, columns)."""
        top = self.corners[index][0]
        return x[:, :, top : top + self.height].index_select(3, self.columns_of(index, x.device))

    def average(self, parts: Sequence[Tensor]) -> Tensor:
        """The mean over the windows that hold each cell, from all windows' (N, C, height, width)."""
        first = parts[0]
        total = first.new_zeros(*first.shape[:2], self.rows, self.columns)
        count = first.new_zeros(1, 1, self.rows, self.columns)
        for index, part in enumerate(parts):
            top = self.corners[index][0]
            columns = self.columns_of(index, first.device)
            total[:, :, top : top + self.height].index_add_(3, columns, part)
            count[:, :, top : top + self.height].index_add_(3, columns, torch.ones_like(part[:1, :1]))
        return total / count
