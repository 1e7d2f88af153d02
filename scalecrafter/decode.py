"""Decode large images in tiles without seams, with the memory of one tile and the work of decoding at once.

Splitting an autoencoder's decoder into tiles changes what every group normalisation sees: per-tile statistics shift
each tile's tone; blending hides the seam, not the shift (up to 80 of 255 on the scenes model). Here every tile is
normalised with the statistics of the whole image, as in decoding at once, so only rounding errors remain.

The decoder runs one convolution at a time, over all tiles. What a convolution makes of a tile is put into feature maps
of the whole image, which are kept elsewhere than on the device, and its statistics are added to those of the next
normalisation. The next convolution then reads its tiles from these maps, with the one pixel that it needs beyond each
border, so nothing is computed twice but that pixel. Global layers, such as the attention in the middle block, come
first in a decoder and run untiled at latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import UpDecoderBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from scalecrafter.patching import Forward, replaced_forward
from scalecrafter.tiles import Maps, Tile

TILE = 128  # latent pixels: 1024 image pixels with Stable Diffusion's factor of 8


@dataclass(frozen=True)
class TiledDecoder:
    """A decoder whose layers after the middle block run tile by tile with the statistics of the whole image.

    Args:
        tile_size: side of a tile in latent pixels.
        storage: device that keeps the feature maps of the whole image.
    """

    decoder: Any
    tile_size: int
    storage: torch.device

    def decode(self, sample: Tensor, latent_embeds: Tensor | None) -> Tensor:
        """(N, C, h, w) latents -> (N, 3, H, W) image, on the device of the latents."""
        decoder = self.decoder
        maps = self.keep(decoder.mid_block(decoder.conv_in(sample), latent_embeds))
        for block in decoder.up_blocks:
            for layers in block.resnets:
                maps = self.resnet(layers, maps)
            for upsampler in block.upsamplers or ():
                maps = each_tile(upsampler, maps, self.storage)
        with maps.statistics.used_by(decoder.conv_norm_out):
            last = nn.Sequential(decoder.conv_norm_out, decoder.conv_act, decoder.conv_out)
            return each_tile(last, maps, maps.device).values

    def keep(self, values: Tensor) -> Maps:
        """Move feature maps from the device to the storage."""
        maps = Maps(torch.empty_like(values, device=self.storage), self.tile_size, values.device)
        for tile in maps.tiles():
            maps.put(tile.inner, values[(..., *tile.inner)])
        return maps

    def resnet(self, layers: Any, maps: Maps) -> Maps:
        """Apply a ResnetBlock2D in two stages; the result overwrites ``maps`` where it has no more channels."""

        def add_input(part: Tensor, tile: Tile) -> Tensor:
            skip = maps.part(tile.inner)
            skip = skip if layers.conv_shortcut is None else layers.conv_shortcut(skip)
            return (skip + part) / layers.output_scale_factor

        with maps.statistics.used_by(layers.norm1):
            first = nn.Sequential(layers.norm1, layers.nonlinearity, layers.conv1)
            hidden = each_tile(first, maps, self.storage)
        with hidden.statistics.used_by(layers.norm2):
            second = nn.Sequential(layers.norm2, layers.nonlinearity, layers.dropout, layers.conv2)
            return each_tile(second, hidden, self.storage, finish=add_input, reuse=maps.values)


def each_tile(
    layers: Callable[[Tensor], Tensor],
    maps: Maps,
    storage: torch.device,
    *,
    finish: Callable[[Tensor, Tile], Tensor] = lambda part, tile: part,
    reuse: Tensor | None = None,
) -> Maps:
    """Apply layers with one convolution to all tiles.

    Args:
        storage: device that keeps the result.
        finish: makes the result of a tile from the layers' result for its inner part.
        reuse: feature maps that the result may overwrite, of which ``finish`` reads the same tile only.
    """
    made: Maps | None = None
    for tile in maps.tiles():
        outer = layers(maps.part(tile.outer))
        factor = tile.factor(outer)
        part = finish(outer[(..., *tile.within(factor))], tile)
        if made is None:
            samples, channels = part.shape[:2]
            if reuse is not None and reuse.shape[1] >= channels:
                values = reuse[:, :channels]
            else:
                height, width = (side * factor for side in maps.values.shape[-2:])
                values = part.new_empty(samples, channels, height, width, device=storage)
            made = Maps(values, maps.side * factor, maps.device)
        made.put(tile.enlarged(factor), part)
    assert made is not None
    return made


def check_decoder(decoder: Any) -> None:
    """ValueError for a decoder other than AutoencoderKL's, or with layers that tiles would change."""
    expected = [(decoder, Decoder)]
    if isinstance(decoder, Decoder):
        expected += [(block, UpDecoderBlock2D) for block in decoder.up_blocks]
        for block in decoder.up_blocks:
            expected += [(layers, ResnetBlock2D) for layers in getattr(block, "resnets", ())]
            expected += [(layers, Upsample2D) for layers in getattr(block, "upsamplers", None) or ()]
        expected.append((decoder.conv_norm_out, nn.GroupNorm))
    found = {type(module).__name__ for module, kind in expected if not isinstance(module, kind)}
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
            found.add(f"{module.padding_mode} padding")
        replaced = module is decoder or isinstance(module, nn.GroupNorm)
        if replaced and getattr(getattr(module, "_diffusers_hook", None), "hooks", None):
            found.add("group offloading")  # diffusers' hooks are in the forward that is replaced, unlike accelerate's
    if found:
        raise ValueError(f"tiled decoding supports AutoencoderKL with group normalisation only, not {sorted(found)}")


@contextmanager
def tiled_decoding(vae: Any, *, tile_size: int = TILE, storage: torch.device | str = "cpu") -> Iterator[None]:
    """Make ``vae`` decode latents larger than a tile in tiles; on exit the VAE is restored.

    Hooks that accelerate has put on the layers, as for offloading, keep running. Latents that require a gradient are
    decoded at once.

    Args:
        vae: the autoencoder of a pipeline, an AutoencoderKL.
        tile_size: side of a tile in latent pixels.
        storage: device that keeps the feature maps of the whole image, at most three times the largest that the
            decoder makes: main memory, or the device of the VAE if it has the room, which saves moving them.

    Raises:
        ValueError: unsupported decoder, or ``tile_size`` below 1.
    """
    if tile_size < 1:
        raise ValueError(f"tile_size must be at least 1, not {tile_size}")
    decoder = vae.decoder
    check_decoder(decoder)
    tiled = TiledDecoder(decoder, tile_size, torch.device(storage))

    def replacement(whole: Forward) -> Forward:
        def forward(sample: Tensor, latent_embeds: Tensor | None = None) -> Tensor:
            fits = max(sample.shape[-2:]) <= tile_size
            if fits or (torch.is_grad_enabled() and sample.requires_grad):
                decoded: Tensor = whole(sample, latent_embeds)
                return decoded
            with torch.no_grad():
                return tiled.decode(sample, latent_embeds)

        return forward

    with replaced_forward(decoder, replacement):
        yield
