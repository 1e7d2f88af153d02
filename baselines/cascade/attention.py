"""Maps of attention, and attention over windows and over the whole map, fused: FreeScale's scale fusion (Qiu et al.,
ICCV 2025).

Windows of the size seen in training (local) draw details well and repeat objects; attention over the whole map
(global) does neither. The output is global + G(local - global), with a Gaussian low-pass G over the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from baselines.cascade.images import blur, gaussian
from baselines.cascade.sizes import Size
from scalecrafter.patching import Forward

WINDOW_BATCH = 16  # windows in one call of the attention: memory only


def level_of(latent: Size, tokens: int) -> int:
    """How often the U-Net has halved a latent (rows, columns) to get this many tokens.

    Raises:
        ValueError: it cannot be that often.
    """
    rows, columns = latent
    for level in range(16):
        if rows * columns == tokens:
            return level
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
    raise ValueError(f"{tokens} tokens are not a latent of {latent[0]}x{latent[1]} halved some times")


def at_level(latent: Size, level: int) -> Size:
    """(rows, columns) of a latent that the U-Net has halved ``level`` times."""
    return -(-latent[0] // 2**level), -(-latent[1] // 2**level)


def attention_map(attention: Any, queries: Tensor, keys: Tensor) -> Tensor:
    """(N, queries, keys) softmax(Q K^T / sqrt(d)) of a layer's (N, tokens, heads d), the mean over heads, float32."""
    q, k = (x.float().unflatten(2, (attention.heads, -1)).transpose(1, 2) for x in (queries, keys))
    return (q @ k.transpose(2, 3) * attention.scale).softmax(-1).mean(1)


def window_count(length: int, window: int) -> int:
    """Windows that overlap by about half along one side of a map."""
    return 1 if length <= window else math.ceil((length - window) / (window / 2) - 1e-6) + 1


def window_starts(length: int, window: int, moves: Sequence[float]) -> list[int]:
    """Starts of as many windows as there are ``moves``, in [-1, 1]: the first and last at the borders, the others
    moved by up to an eighth of the window.
    """
    last = len(moves) - 1
    starts = [round(index * (length - window) / last) if last else 0 for index in range(len(moves))]
    inside = [start + round(move * (window // 8)) for start, move in zip(starts, moves, strict=True)]
    return [max(0, start) for start in (starts[:1] + inside[1:-1] + starts[-1:] if last else starts)]


@dataclass(frozen=True)
class ScaleFusion:
    """One U-Net call with fused self-attention.

    Args:
        latent: (rows, columns) of the latent in this call; ``base``: in training.
        moves: (images, rows of windows, columns of windows, 2) in [-1, 1]: where each image's windows move to.
        strided: global attention is that over each of the base-sized grids that interleave to the map.
        channels: the low-pass runs over the channels as well, as in the public code.
    """

    latent: Size
    base: Size
    moves: Tensor
    strided: bool = False
    channels: bool = False

    @staticmethod
    def windows(latent: Size, base: Size) -> tuple[int, int]:
        """(rows, columns) of windows, the same at all levels of the U-Net."""
        return window_count(latent[0], base[0]), window_count(latent[1], base[1])

    @property
    def ratios(self) -> tuple[int, int]:
        """By how much each side is larger than in training, rounded."""
        rows, columns = (max(1, round(now / then)) for now, then in zip(self.latent, self.base, strict=True))
        return rows, columns

    def replacement(self, plain: Forward) -> Forward:
        """The forward of a self-attention, from the plain one."""

        def forward(x: Tensor, encoder_hidden_states: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
            if encoder_hidden_states is not None:
                attended: Tensor = plain(x, encoder_hidden_states, *args, **kwargs)
                return attended
            return self.fused(lambda part: plain(part, None, *args, **kwargs), x)

        return forward

    def fused(self, plain: Forward, x: Tensor) -> Tensor:
        """(N, tokens, channels) -> the same, with ``plain`` as attention."""
        level = level_of(self.latent, x.shape[1])
        size = at_level(self.latent, level)
        everywhere = self.interleaved(plain, x, size) if self.strided else plain(x)
        difference = self.local(plain, x, size, at_level(self.base, level)) - everywhere
        maps = difference.transpose(1, 2).unflatten(2, size)
        low = blur(maps, gaussian(2 * max(self.ratios) - 1, 1.0), (1, 2, 3) if self.channels else (2, 3))
        return everywhere + low.flatten(2).transpose(1, 2)

    def interleaved(self, plain: Forward, x: Tensor, size: Size) -> Tensor:
        """Attention over every n-th row and column, for each offset."""
        grid, (rows, columns) = x.unflatten(1, size), self.ratios
        found = torch.empty_like(grid)
        for top in range(rows):
            for left in range(columns):
                part = grid[:, top::rows, left::columns]
                found[:, top::rows, left::columns] = plain(part.flatten(1, 2)).view(part.shape)
        return found.flatten(1, 2)

    def local(self, plain: Forward, x: Tensor, size: Size, window: Size) -> Tensor:
        """The mean over windows of attention inside each; guidance halves of an image share its windows."""
        images = len(self.moves)
        halves = x.reshape(-1, images, *x.shape[1:])
        found = torch.empty_like(halves)
        for index in range(images):
            places = self.places(index, size, window).to(x.device)  # (windows, tokens of a window)
            total, count = torch.zeros_like(halves[:, index]), x.new_zeros(x.shape[1], 1)
            for chosen in places.split(WINDOW_BATCH):
                parts = halves[:, index][:, chosen].flatten(0, 1)
                attended = plain(parts).view(len(halves), -1, x.shape[2])
                total.index_add_(1, chosen.flatten(), attended)
                count.index_add_(0, chosen.flatten(), torch.ones_like(attended[0, :, :1]))
            found[:, index] = total / count
        return found.reshape(x.shape)

    def places(self, image: int, size: Size, window: Size) -> Tensor:
        """(windows, tokens) token indices of one image's windows."""
        moves, side = self.moves[image], (min(size[0], window[0]), min(size[1], window[1]))
        rows, columns = moves.shape[:2]
        tops = torch.tensor([window_starts(size[0], side[0], moves[:, c, 0].tolist()) for c in range(columns)]).T
        lefts = torch.tensor([window_starts(size[1], side[1], moves[r, :, 1].tolist()) for r in range(rows)])
        row = tops.flatten()[:, None, None] + torch.arange(side[0])[None, :, None]
        column = lefts.flatten()[:, None, None] + torch.arange(side[1])[None, None, :]
        return (row * size[1] + column).flatten(1)
