"""Decoding large pictures in tiles that leave no seam, with the memory of one tile.

Cutting an autoencoder's decoder into tiles changes what every group normalisation sees: each tile gets a tone of its
own, which blending only smears (up to 80 of 255 on our scenes). Here all tiles are normalised by the statistics of the
whole picture. They are found one normalisation after the other, in a pass over the tiles that stops there and uses
those found before. What looks at the whole picture at once, attention in the middle, runs at the size of the latent,
untiled. Tiles overlap by as much as convolutions reach, so what remains is rounding. The price is time: each of some
25 passes repeats the ones before it up to its layer, about eleven decodings in all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

TILE = 128  # cells: 1024 pixels with Stable Diffusion's factor of 8
REACH = 16  # cells that the convolutions after the middle block see to each side; Stable Diffusion's are 12.3


class Reached(Exception):
    """A normalisation without statistics was met: the pass over this tile ends here."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        self.norm = norm


@dataclass(frozen=True)
class Box:
    """A tile in cells: rows and columns that it is responsible for, and with its surroundings."""

    inner: tuple[slice, slice]
    outer: tuple[slice, slice]

    def within(self, factor: int) -> tuple[slice, slice]:
        """The inner part of maps that were computed from the outer one, ``factor`` times as large."""
        rows, columns = (
            slice((i.start - o.start) * factor, (i.stop - o.start) * factor)
            for i, o in zip(self.inner, self.outer, strict=True)
        )
        return rows, columns


def boxes(height: int, width: int, tile: int, reach: int) -> list[Box]:
    """Tiles of at most ``tile`` cells that cover the map."""

    def spans(length: int) -> list[tuple[slice, slice]]:
        inner = [slice(start, min(start + tile, length)) for start in range(0, length, tile)]
        return [(s, slice(max(0, s.start - reach), min(length, s.stop + reach))) for s in inner]

    return [Box((r, c), (ro, co)) for r, ro in spans(height) for c, co in spans(width)]


@dataclass
class Statistics:
    """Mean and mean square of each sample's groups, (N, groups) float64, gathered over tiles."""

    count: int = 0
    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, maps: Tensor, groups: int) -> None:
        """Another part, (N, C, h, w)."""
        variance, mean = torch.var_mean(maps.float().reshape(len(maps), groups, -1), -1, correction=0)
        mean, variance = mean.double(), variance.double()
        size = maps[0].numel() // groups
        self.count += size
        self.total = self.total + size * mean
        self.squares = self.squares + size * (variance + mean.square())

    def normalise(self, maps: Tensor, norm: nn.GroupNorm) -> Tensor:
        """What the normalisation would do to these maps as a part of the whole."""
        mean = torch.as_tensor(self.total) / self.count
        deviation = (torch.as_tensor(self.squares) / self.count - mean.square() + norm.eps).sqrt()
        mean, deviation = (
            each.to(maps.device).repeat_interleave(norm.num_channels // norm.num_groups, 1)[..., None, None]
            for each in (mean, deviation)
        )
        scale = norm.weight.double()[:, None, None] / deviation
        shift = norm.bias.double()[:, None, None] - mean * scale
        return (maps.float() * scale.float() + shift.float()).to(maps.dtype)


@dataclass
class Passes:
    """The outer part of a decoder over tiles, with statistics of the whole picture."""

    decoder: Any
    found: dict[nn.GroupNorm, Statistics] = field(default_factory=dict)
    gathered: Statistics = field(default_factory=Statistics)
    box: Box | None = None

    def normalise(self, norm: nn.GroupNorm, maps: Tensor) -> Tensor:
        if norm in self.found:
            return self.found[norm].normalise(maps, norm)
        assert self.box is not None
        rows, columns = self.box.within(maps.shape[-1] // (self.box.outer[1].stop - self.box.outer[1].start))
        self.gathered.add(maps[..., rows, columns], norm.num_groups)
        raise Reached(norm)

    def outer(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) after the middle block -> (N, 3, H, W)."""
        for block in self.decoder.up_blocks:
            maps = block(maps)
        return self.decoder.conv_out(self.decoder.conv_act(self.decoder.conv_norm_out(maps)))

    def decode(self, maps: Tensor, tiles: list[Box]) -> Tensor:
        """All passes; the last one, which no normalisation stops, gives the picture."""
        while True:
            picture, reached = None, None
            self.gathered = Statistics()
            for self.box in tiles:
                try:
                    part = self.outer(maps[(..., *self.box.outer)])
                except Reached as stop:
                    reached = stop.norm
                    continue
                factor = part.shape[-1] // (self.box.outer[1].stop - self.box.outer[1].start)
                if picture is None:
                    size = [side * factor for side in maps.shape[-2:]]
                    picture = part.new_empty(*part.shape[:2], *size)
                rows, columns = (slice(s.start * factor, s.stop * factor) for s in self.box.inner)
                picture[..., rows, columns] = part[(..., *self.box.within(factor))]
            if reached is None:
                assert picture is not None
                return picture
            self.found[reached] = self.gathered


def outer_norms(decoder: Any) -> list[nn.GroupNorm]:
    """Normalisations after the middle block; ValueError if there are some that this module cannot tile."""
    parts = [*decoder.up_blocks, decoder.conv_norm_out]
    modules = [module for part in parts for module in part.modules()]
    other = [type(module).__name__ for module in modules if "Norm" in type(module).__name__ and not is_group(module)]
    if other or any("Attention" in type(module).__name__ for module in modules):
        raise ValueError(f"only decoders with group normalisation alone after the middle are tiled, not {other}")
    return [module for module in modules if is_group(module)]


def is_group(module: nn.Module) -> bool:
    return isinstance(module, nn.GroupNorm)


@contextmanager
def tiled_decoding(vae: Any, *, tile: int = TILE, reach: int = REACH) -> Iterator[None]:
    """Within it ``vae`` (an AutoencoderKL) decodes what is larger than a tile in tiles; leaving it restores the VAE.

    Args:
        tile: cells of a tile's side; its surroundings come on top.
        reach: cells that a tile sees beyond its borders.

    Raises:
        ValueError: a decoder that cannot be tiled, or a tile below one cell.
    """
    if tile < 1 or reach < 0:
        raise ValueError(f"a tile has at least one cell and sees none or more beyond it, not {tile} and {reach}")
    decoder = vae.decoder
    norms = outer_norms(decoder)
    whole = decoder.forward

    def forward(sample: Tensor, latent_embeds: Tensor | None = None) -> Tensor:
        height, width = sample.shape[-2:]
        tiles = boxes(height, width, tile, reach)
        if len(tiles) == 1:
            return whole(sample, latent_embeds)
        passes = Passes(decoder)
        for norm in norms:
            norm.forward = partial(passes.normalise, norm)  # type: ignore[method-assign]
        try:
            return passes.decode(decoder.mid_block(decoder.conv_in(sample), latent_embeds), tiles)
        finally:
            for norm in norms:
                del norm.forward

    decoder.forward = forward
    try:
        yield
    finally:
        del decoder.forward
