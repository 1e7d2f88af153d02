"""Decode large images in tiles without seams, with the memory of one tile.

Splitting an autoencoder's decoder into tiles changes what every group normalisation sees: per-tile statistics shift
each tile's tone; blending hides the seam, not the shift (up to 80 of 255 on the scenes model). Here every tile is
normalised with the statistics of the whole image. They are gathered one normalisation at a time, in a pass over the
tiles that stops at that layer and uses the statistics found before. Global layers, such as the attention in the middle
block, run untiled at latent size. Tiles overlap by the receptive field of the convolutions, so only rounding errors
remain. The price is time: each of about 25 passes repeats the previous ones up to its layer, about eleven decodings in
total.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from scalecrafter.patching import Forward, replaced_forward

TILE = 128  # latent pixels: 1024 image pixels with Stable Diffusion's factor of 8
OVERLAP = 16  # latent pixels to each side; the convolutions after Stable Diffusion's middle block see 12.3


class StatisticsNeeded(Exception):
    """Ends the pass over a tile at a normalisation whose statistics are not known yet."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        self.norm = norm


@dataclass(frozen=True)
class Tile:
    """Rows and columns of the latent that a tile contributes (inner), and those it is computed from (outer)."""

    inner: tuple[slice, slice]
    outer: tuple[slice, slice]

    def within(self, factor: int) -> tuple[slice, slice]:
        """The inner part of feature maps computed from the outer one and ``factor`` times its size."""
        rows, columns = (
            slice((i.start - o.start) * factor, (i.stop - o.start) * factor)
            for i, o in zip(self.inner, self.outer, strict=True)
        )
        return rows, columns

    def factor(self, maps: Tensor) -> int:
        """How much larger than the tile's outer part ``maps`` are."""
        return int(maps.shape[-1] // (self.outer[1].stop - self.outer[1].start))


def split_into_tiles(height: int, width: int, tile_size: int, overlap: int) -> list[Tile]:
    """Tiles that cover a latent, with inner parts of at most ``tile_size`` and ``overlap`` around them."""

    def spans(length: int) -> list[tuple[slice, slice]]:
        inner = [slice(start, min(start + tile_size, length)) for start in range(0, length, tile_size)]
        return [(s, slice(max(0, s.start - overlap), min(length, s.stop + overlap))) for s in inner]

    return [Tile((r, c), (ro, co)) for r, ro in spans(height) for c, co in spans(width)]


@dataclass
class Statistics:
    """Mean and mean square of each sample's groups, (N, groups) float64, accumulated over tiles."""

    count: int = 0
    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, maps: Tensor, groups: int) -> None:
        """Add the (N, C, h, w) feature maps of one tile."""
        variance, mean = torch.var_mean(maps.float().reshape(len(maps), groups, -1), -1, correction=0)
        mean, variance = mean.double(), variance.double()
        size = maps[0].numel() // groups
        self.count += size
        self.total = self.total + size * mean
        self.squares = self.squares + size * (variance + mean.square())

    def normalise(self, maps: Tensor, norm: nn.GroupNorm) -> Tensor:
        """Apply ``norm`` to the maps of a tile, with the statistics of the whole image."""
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
class TiledDecoder:
    """The part of a decoder after its middle block, run tile by tile with the statistics of the whole image."""

    decoder: Any
    found: dict[nn.GroupNorm, Statistics] = field(default_factory=dict)
    gathered: Statistics = field(default_factory=Statistics)
    tile: Tile | None = None

    def normalise(self, norm: nn.GroupNorm, maps: Tensor) -> Tensor:
        """The forward of ``norm`` during a pass: normalise, or gather this tile's statistics and stop."""
        if norm in self.found:
            return self.found[norm].normalise(maps, norm)
        assert self.tile is not None
        rows, columns = self.tile.within(self.tile.factor(maps))
        self.gathered.add(maps[..., rows, columns], norm.num_groups)
        raise StatisticsNeeded(norm)

    def normalising(self, norm: nn.GroupNorm, plain: Forward) -> Forward:
        """The replacement of ``norm``'s forward."""
        return partial(self.normalise, norm)

    def outer(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) after the middle block -> (N, 3, H, W)."""
        for block in self.decoder.up_blocks:
            maps = block(maps)
        return self.decoder.conv_out(self.decoder.conv_act(self.decoder.conv_norm_out(maps)))

    def decode(self, maps: Tensor, tiles: list[Tile]) -> Tensor:
        """Repeat passes over all tiles until one reaches the end and yields the (N, 3, H, W) image."""
        while True:
            image, missing = None, None
            self.gathered = Statistics()
            for self.tile in tiles:
                try:
                    part = self.outer(maps[(..., *self.tile.outer)])
                except StatisticsNeeded as stop:
                    missing = stop.norm
                    continue
                factor = self.tile.factor(part)
                if image is None:
                    size = [side * factor for side in maps.shape[-2:]]
                    image = part.new_empty(*part.shape[:2], *size)
                rows, columns = (slice(s.start * factor, s.stop * factor) for s in self.tile.inner)
                image[..., rows, columns] = part[(..., *self.tile.within(factor))]
            if missing is None:
                assert image is not None
                return image
            self.found[missing] = self.gathered


def outer_norms(decoder: Any) -> list[nn.GroupNorm]:
    """Group normalisations after the middle block; ValueError if global layers of another kind follow it too."""
    parts = [*decoder.up_blocks, decoder.conv_norm_out]
    modules = [module for part in parts for module in part.modules()]
    norms = [module for module in modules if isinstance(module, nn.GroupNorm)]
    unsupported = {
        type(module).__name__
        for module in modules
        if ("Norm" in type(module).__name__ and module not in norms) or "Attention" in type(module).__name__
    }
    if unsupported:
        raise ValueError(
            f"tiled decoding supports group normalisation only after the middle block, not {sorted(unsupported)}"
        )
    return norms


@contextmanager
def tiled_decoding(vae: Any, *, tile_size: int = TILE, overlap: int = OVERLAP) -> Iterator[None]:
    """Make ``vae`` (an AutoencoderKL) decode latents larger than a tile in tiles; on exit the VAE is restored.

    Hooks that accelerate has put on the modules, as for offloading, keep running.

    Args:
        tile_size: side of a tile in latent pixels, without its overlap.
        overlap: latent pixels that a tile sees beyond each of its borders.

    Raises:
        ValueError: unsupported decoder, ``tile_size`` below 1 or negative ``overlap``.
    """
    if tile_size < 1 or overlap < 0:
        raise ValueError(f"tile_size must be at least 1 and overlap at least 0, not {tile_size} and {overlap}")
    decoder = vae.decoder
    norms = outer_norms(decoder)

    def replacement(whole: Forward) -> Forward:
        def forward(sample: Tensor, latent_embeds: Tensor | None = None) -> Tensor:
            tiles = split_into_tiles(sample.shape[-2], sample.shape[-1], tile_size, overlap)
            if len(tiles) == 1:
                decoded: Tensor = whole(sample, latent_embeds)
                return decoded
            tiled = TiledDecoder(decoder)
            with ExitStack() as patches:
                for norm in norms:
                    patches.enter_context(replaced_forward(norm, partial(tiled.normalising, norm)))
                return tiled.decode(decoder.mid_block(decoder.conv_in(sample), latent_embeds), tiles)

        return forward

    with replaced_forward(decoder, replacement):
        yield
