"""Windows of the training size over a larger latent: their positions, cropping them, and averaging over them; and
predicting such parts of a latent, a few in each call of the U-Net.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from baselines.method import Calls
from scalecrafter.batch import map_batch

# (keyword arguments of a call on several parts, the parts' indices) -> keyword arguments
Change = Callable[[dict[str, Any], range], dict[str, Any]]


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


def predict_parts(
    unet: Callable[..., Any],
    parts: list[Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    most: int,
    change: Change | None = None,
) -> list[Tensor]:
    """The prediction of each part (N, C, rows, columns), with at most ``most`` of them in a call.

    A call's batch holds the parts one after the other. ``args`` and ``kwargs`` are the other arguments of a call on
    one part; ``change`` adapts the latter to the parts of a call.
    """
    predictions: list[Tensor] = []
    for start in range(0, len(parts), most):
        chosen = parts[start : start + most]
        count, batch = len(chosen), len(chosen[0])
        all_args, all_kwargs = map_batch((args, kwargs), (batch,), partial(repeat_batch, count=count))
        if change is not None:
            all_kwargs = change(all_kwargs, range(start, start + count))
        predictions += unet(torch.cat(chosen), *all_args, **{**all_kwargs, "return_dict": False})[0].split(batch)
    return predictions


def repeat_batch(x: Tensor, count: int) -> Tensor:
    """A batch, ``count`` times over."""
    return torch.cat([x] * count)


def calls_on_parts(parts: int, times: int, most: int, samples: int, size: tuple[int, int]) -> list[Calls]:
    """The calls of `predict_parts` on ``parts`` latents of this size, of ``samples`` each, ``times`` times over."""
    full, rest = divmod(parts, most)
    kinds = ((times * full, most), (times, rest))
    return [Calls(repeated, count * samples, *size) for repeated, count in kinds if repeated and count]
