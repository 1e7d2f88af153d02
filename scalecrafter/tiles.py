"""Feature maps of a whole image that are computed tile by tile, and the statistics of the whole that tiles share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from scalecrafter.patching import replaced_forward

HALO = 1  # pixels that a 3x3 convolution sees beyond each border

Span = tuple[slice, slice]


@dataclass(frozen=True)
class Tile:
    """Rows and columns of feature maps that a tile contributes (inner), and those it is computed from (outer)."""

    inner: Span
    outer: Span

    def within(self, factor: int) -> Span:
        """The inner part of feature maps computed from the outer one and ``factor`` times its size."""
        rows, columns = (
            slice((i.start - o.start) * factor, (i.stop - o.start) * factor)
            for i, o in zip(self.inner, self.outer, strict=True)
        )
        return rows, columns

    def enlarged(self, factor: int) -> Span:
        """The inner part of the whole image's feature maps at ``factor`` times the size."""
        rows, columns = (slice(each.start * factor, each.stop * factor) for each in self.inner)
        return rows, columns

    def factor(self, maps: Tensor) -> int:
        """How much larger than the tile's outer part ``maps`` are."""
        return int(maps.shape[-1] // (self.outer[1].stop - self.outer[1].start))


def split_into_tiles(height: int, width: int, tile_size: int, overlap: int) -> list[Tile]:
    """Tiles that cover feature maps, with inner parts of at most ``tile_size`` and ``overlap`` around them."""

    def spans(length: int) -> list[Span]:
        inner = [slice(start, min(start + tile_size, length)) for start in range(0, length, tile_size)]
        return [(s, slice(max(0, s.start - overlap), min(length, s.stop + overlap))) for s in inner]

    return [Tile((r, c), (ro, co)) for r, ro in spans(height) for c, co in spans(width)]


@dataclass
class Statistics:
    """Sum and sum of squares of each sample's channels, (N, C) float64 on the CPU, accumulated over tiles."""

    count: int = 0
    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, maps: Tensor) -> None:
        """Add the (N, C, h, w) feature maps of one tile."""
        single = maps.to(torch.promote_types(maps.dtype, torch.float32))
        mean = single.mean((-2, -1), keepdim=True)
        variance = (single - mean).square_().mean((-2, -1)).cpu().double()  # on a CPU ten times as fast as var_mean
        mean = mean[..., 0, 0].cpu().double()
        size = maps.shape[-2] * maps.shape[-1]
        self.count += size
        self.total = self.total + size * mean
        self.squares = self.squares + size * (variance + mean.square())

    def of_groups(self, groups: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of the group that each channel is in, (N, C) each."""
        total, squares = torch.as_tensor(self.total), torch.as_tensor(self.squares)
        size = total.shape[1] // groups
        mean, square = (each.unflatten(1, (groups, size)).mean(-1) / self.count for each in (total, squares))
        variance = (square - mean.square()).clamp(min=0)
        return mean.repeat_interleave(size, 1), variance.repeat_interleave(size, 1)

    def normalise(self, norm: nn.GroupNorm, maps: Tensor) -> Tensor:
        """Apply ``norm`` to the maps of a tile, with the statistics of the whole image.

        Normalising each channel of each sample with given statistics is what batch normalisation does in use.
        """
        dtype = torch.promote_types(maps.dtype, torch.float32)
        mean, variance = (each.flatten().to(dtype).to(maps.device) for each in self.of_groups(norm.num_groups))
        weight, bias = (each.to(dtype).repeat(len(maps)) for each in (norm.weight, norm.bias))
        channels = maps.reshape(1, -1, *maps.shape[-2:])
        return batch_norm(channels, mean, variance, weight, bias, eps=norm.eps).reshape(maps.shape)

    def used_by(self, norm: nn.GroupNorm) -> AbstractContextManager[None]:
        """Let ``norm`` normalise with these statistics."""
        return replaced_forward(norm, lambda own: partial(self.normalise, norm))


@dataclass
class Maps:
    """Feature maps of the whole image between two convolutions.

    Args:
        values: (N, C, h, w) where they are kept.
        side: of a tile, in pixels of these maps.
        device: where tiles are computed.
    """

    values: Tensor
    side: int
    device: torch.device
    statistics: Statistics = field(default_factory=Statistics)

    def tiles(self) -> list[Tile]:
        return split_into_tiles(self.values.shape[-2], self.values.shape[-1], self.side, HALO)

    def part(self, span: Span) -> Tensor:
        """These rows and columns, on the device."""
        return self.values[(..., *span)].to(self.device)

    def put(self, span: Span, part: Tensor) -> None:
        """Set these rows and columns, which are not in the statistics yet."""
        self.values[(..., *span)] = part
        self.statistics.add(part)
