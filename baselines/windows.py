"""Windows of the training size over a larger latent: their positions, cropping them, and averaging over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def positions(size: int, window: int, stride: int, circular: bool = False) -> list[int]:
    """Starts of the windows that cover one side of a latent.

    The last window is moved inwards to end at the border. Circular windows start at every stride and wrap around it.
    """
    if circular and size > window:
        return list(range(0, size, stride))
    starts = list(range(0, size - window + 1, stride))
    return starts if starts[-1] + window == size else [*starts, size - window]


@dataclass(frozen=True)
class Windows:
    """Windows of ``height`` x ``width`` latent pixels over a (..., rows, columns) latent.

    ``corners`` are their (top, left) positions. Columns wrap around the right border.
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
        """Windows that cover the latent; ValueError if a window exceeds it, or the stride exceeds a window."""
        if height > rows or width > columns:
            raise ValueError(
                f"a window of {height}x{width} is larger than the latent of {rows}x{columns}: request a larger size"
            )
        for step, side in zip(stride, (height, width), strict=True):
            if not 1 <= step <= side:
                raise ValueError(f"the stride must be 1 to {side}, the window's side, to cover the latent, not {step}")
        tops, lefts = positions(rows, height, stride[0]), positions(columns, width, stride[1], circular)
        return cls(rows, columns, height, width, tuple((top, left) for top in tops for left in lefts))

    def __len__(self) -> int:
        return len(self.corners)

    def columns_of(self, index: int, device: torch.device) -> Tensor:
        """Column indices of window ``index``, wrapped around the right border."""
        return (self.corners[index][1] + torch.arange(self.width, device=device)) % self.columns

    def crop(self, x: Tensor, index: int) -> Tensor:
        """Window ``index`` of (N, C, rows, columns), as (N, C, height, width)."""
        top = self.corners[index][0]
        return x[:, :, top : top + self.height].index_select(3, self.columns_of(index, x.device))

    def average(self, parts: Sequence[Tensor]) -> Tensor:
        """All windows' (N, C, height, width) -> (N, C, rows, columns), the mean wherever windows overlap."""
        first = parts[0]
        total = first.new_zeros(*first.shape[:2], self.rows, self.columns)
        count = first.new_zeros(1, 1, self.rows, self.columns)
        for index, part in enumerate(parts):
            top = self.corners[index][0]
            columns = self.columns_of(index, first.device)
            total[:, :, top : top + self.height].index_add_(3, columns, part)
            count[:, :, top : top + self.height].index_add_(3, columns, torch.ones_like(part[:1, :1]))
        return total / count
