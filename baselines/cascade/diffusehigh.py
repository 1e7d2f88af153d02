"""DiffuseHigh (Kim et al., AAAI 2025): samples that are enlarged, sharpened and sampled again from a low noise level,
with the low frequencies of the enlarged image kept in the first steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from baselines.cascade.engine import Cascade
from baselines.cascade.images import bicubic, decode, encode, enlarged_images
from baselines.cascade.parts import Part, progress_of, restarts
from baselines.cascade.sampling import Sampling
from baselines.cascade.sizes import Size, linear_sizes, side_ratio
from scalecrafter.pipeline import vae_scale_factor

# Scaling filters of orthogonal wavelets (Daubechies, 1992).
WAVELETS = {
    "haar": (math.sqrt(0.5), math.sqrt(0.5)),
    "db4": (
        *(0.23037781330889650, 0.71484657055291565, 0.63088076792985890, -0.02798376941685985),
        *(-0.18703481171909309, 0.03084138183556076, 0.03288301166688520, -0.01059740178506903),
    ),
}


def filtered(x: Tensor, taps: Sequence[float], dim: int) -> Tensor:
    """The low band of one wavelet level along the last (-1) or second last dimension of (N, C, H, W).

    The border is mirrored with its pixels repeated; n values give (n + taps - 1) // 2.
    """
    length, margin = x.shape[dim], len(taps) - 2
    index = torch.arange(-margin, length + margin + length % 2, device=x.device) % (2 * length)
    mirrored = x.index_select(dim, torch.where(index < length, index, 2 * length - 1 - index)).transpose(dim, -1)
    flat = mirrored.reshape(-1, 1, mirrored.shape[-1])
    low = functional.conv1d(flat, x.new_tensor(taps).view(1, 1, -1), stride=2)
    return low.reshape(*mirrored.shape[:-1], -1).transpose(dim, -1)


def restored(low: Tensor, taps: Sequence[float], dim: int, length: int) -> Tensor:
    """What a low band alone stands for, ``length`` values along a dimension: the inverse of one wavelet level."""
    turned = low.transpose(dim, -1)
    flat = functional.conv_transpose1d(
        turned.reshape(-1, 1, turned.shape[-1]), low.new_tensor(taps).view(1, 1, -1), stride=2
    )
    margin = len(taps) - 2
    return flat[..., margin : margin + length].reshape(*turned.shape[:-1], -1).transpose(dim, -1)


def low_band(x: Tensor, wavelet: str) -> Tensor:
    """(N, C, H, W) -> LL band of one level; a constant c becomes 2 c."""
    taps = WAVELETS[wavelet]
    return filtered(filtered(x, taps, -1), taps, -2)


def with_low_band(x: Tensor, low: Tensor, wavelet: str) -> Tensor:
    """``x`` with another LL band and its own three other bands.

    The transform is linear and inverts exactly, so this is ``x`` plus what the difference of both LL bands stands for.
    """
    taps = WAVELETS[wavelet]
    change = restored(low - low_band(x, wavelet), taps, -2, x.shape[-2])
    return x + restored(change, taps, -1, x.shape[-1])


def sharpened(images: Tensor, amount: float, sigma: float) -> Tensor:
    """Unsharp mask: (1 + amount) x - amount blur(x), with a 3x3 Gaussian."""
    return (1 + amount) * images - amount * gaussian_blur(images, [3, 3], [sigma])


@dataclass(frozen=True)
class DiffuseHigh(Cascade):
    """Samples enlarged in steps of half the training size or a whole one, and sampled again from progress ``skip`` on.

    Args:
        skip: share of the schedule that later stages skip.
        guided: progress up to which the low band is kept, from ``skip`` (never) to 1.
        sharpen: amount of the unsharp mask, 0 for none. Its width is drawn for each image and stage.
        guidance_ratio: guidance scale of later stages over that of the request.
        space: keep the low band of decoded images ("rgb"), or of latents, without decoding and encoding ("latent").
        wavelet: db4 or haar.
    """

    size_condition: str = "base"
    skip: float = 0.7
    guided: float = 0.8
    sharpen: float = 1.0
    guidance_ratio: float = 2.0
    space: str = "rgb"
    wavelet: str = "db4"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.skip < 1 or not self.skip <= self.guided <= 1:
            raise ValueError(f"skip (0 to below 1) and guided (skip to 1) are shares: {self.skip}, {self.guided}")
        if self.space not in ("rgb", "latent") or self.wavelet not in WAVELETS:
            raise ValueError(f"space is rgb or latent, wavelet db4 or haar, not {self.space!r} and {self.wavelet!r}")

    def sizes(self, pipe: Any, base: Size, target: Size) -> list[Size]:
        count = self.count or max(3, round(side_ratio(base, target)))
        return linear_sizes(base, target, count, vae_scale_factor(pipe))

    def parts(self, pipe: Any, sizes: Sequence[Size], steps: int) -> list[Part]:
        return restarts(pipe.scheduler, steps, self.skip, len(sizes))

    def guidance(self, index: int, sizes: Sequence[Size], scale: float) -> float:
        return scale * self.guidance_ratio if index else scale

    def relay(self, sampling: Sampling, latents: Tensor, clean: Tensor) -> Tensor:
        bands: list[Tensor] = []
        # Drawn from 0.1 to 2 for each image.
        widths = [0.1 + 1.9 * torch.rand((), generator=g).item() for g in sampling.generators] if self.sharpen else []

        def enlarge(image: Tensor, size: Size) -> Tensor:
            larger = bicubic(image.clamp(-1, 1), size)
            if self.sharpen:
                larger = sharpened(larger, self.sharpen, widths[len(bands)])
            bands.append(low_band(larger, self.wavelet) if self.space == "rgb" else larger[:0])
            return larger

        reference = enlarged_images(sampling.pipe, latents, sampling.stage.size, enlarge, None)
        if self.space == "latent":
            bands = list(low_band(reference.float(), self.wavelet).split(1))
        sampling.memory["low bands"] = bands
        return reference

    def edit_clean(self, sampling: Sampling, clean: Tensor, t: Any) -> Tensor | None:
        if sampling.stage.index == 0 or progress_of(sampling.pipe.scheduler, t) >= self.guided:
            return None
        pairs = zip(clean.split(1), sampling.memory["low bands"], strict=True)
        return torch.cat([self.kept(sampling.pipe, *pair) for pair in pairs])

    def kept(self, pipe: Any, clean: Tensor, band: Tensor) -> Tensor:
        """One image's clean latents with the low band of the enlarged image."""
        if self.space == "latent":
            return with_low_band(clean.float(), band, self.wavelet).to(clean.dtype)
        image = decode(pipe, clean).float().clamp(-1, 1)
        return encode(pipe, with_low_band(image, band, self.wavelet), None).to(clean.dtype)
