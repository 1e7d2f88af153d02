"""From one size to the next: decoding, enlarging and encoding, or enlarging latents as they are; a Gaussian filter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from baselines.cascade.sizes import Size
from scalecrafter.pipeline import is_sdxl, latent_size


@contextmanager
def precise(pipe: Any) -> Iterator[None]:
    """SDXL's autoencoder in float32 if it is in float16, in which it overflows; exactly as before on exit."""
    vae = pipe.vae
    overflows = vae.dtype == torch.float16 and vae.config.force_upcast and is_sdxl(pipe)
    if overflows:
        vae.to(torch.float32)
    try:
        yield
    finally:
        if overflows:
            vae.to(torch.float16)


def statistics(vae: Any, like: Tensor) -> tuple[Any, Any]:
    """(mean, deviation) of an autoencoder's latents, by which some are normalised."""
    mean, deviation = (vae.config.get(name) for name in ("latents_mean", "latents_std"))
    if mean is None or deviation is None:
        return 0.0, 1.0
    return like.new_tensor(mean).view(1, -1, 1, 1), like.new_tensor(deviation).view(1, -1, 1, 1)


def decode(pipe: Any, latents: Tensor) -> Tensor:
    """(N, C, rows, columns) latents -> (N, 3, height, width) images in about [-1, 1], as the pipelines decode."""
    vae = pipe.vae
    with precise(pipe):
        latents = latents.to(vae.dtype)
        mean, deviation = statistics(vae, latents)
        images: Tensor = vae.decode(latents * deviation / vae.config.scaling_factor + mean, return_dict=False)[0]
    return images


def encode(pipe: Any, images: Tensor, generator: torch.Generator | None) -> Tensor:
    """(N, 3, height, width) images in [-1, 1] -> latents, sampled with ``generator``, or the mode without one."""
    vae = pipe.vae
    with precise(pipe):
        distribution = vae.encode(images.to(vae.device, vae.dtype)).latent_dist
        latents = distribution.mode() if generator is None else distribution.sample(generator)
        mean, deviation = statistics(vae, latents)
        encoded: Tensor = (latents - mean) / deviation * vae.config.scaling_factor
    return encoded


def bicubic(x: Tensor, size: Size) -> Tensor:
    """(N, C, H, W) resized with torch's bicubic filter, without antialiasing."""
    return functional.interpolate(x, size, mode="bicubic", align_corners=False)


def nearest(images: Tensor, size: Size) -> Tensor:
    """Images clipped to [-1, 1], resized by repeating pixels."""
    return functional.interpolate(images.clamp(-1, 1), size, mode="nearest")


def pillow_bicubic(images: Tensor, size: Size) -> Tensor:
    """Images clipped to [-1, 1], resized with Pillow's bicubic filter, but not rounded to 256 levels: an error of
    rounding in the U-Net, as another batch size makes, would then become one of a whole level.
    """
    resized = functional.interpolate(images.clamp(-1, 1), size, mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp(-1, 1)


def enlarged_latents(pipe: Any, latents: Tensor, size: Size) -> Tensor:
    """Latents of an image of ``size`` pixels by bicubic interpolation of the latents."""
    return bicubic(latents.float(), latent_size(pipe, size)).to(latents.dtype)


def enlarged_images(
    pipe: Any,
    latents: Tensor,
    size: Size,
    enlarge: Callable[[Tensor, Size], Tensor],
    generators: list[torch.Generator] | None,
) -> Tensor:
    """Latents of images of ``size`` pixels: decoded, enlarged and encoded, one image at a time to save memory.

    Args:
        enlarge: images (1, 3, H, W) in about [-1, 1], size -> larger images.
        generators: one for each image, for a sample of the encoder's distribution; None: its mode.
    """
    found = []
    for index, latent in enumerate(latents.split(1)):
        image = enlarge(decode(pipe, latent).float(), size)
        found.append(encode(pipe, image, None if generators is None else generators[index]))
    return torch.cat(found).to(latents)


def gaussian(side: int, sigma: float) -> Tensor:
    """(side,) weights of a Gaussian filter, with sum one; ``side`` is odd."""
    distance = torch.arange(side, dtype=torch.float64) - side // 2
    weights = torch.exp(-0.5 * (distance / sigma) ** 2)
    return weights / weights.sum()


def blur(x: Tensor, weights: Tensor, dims: Sequence[int]) -> Tensor:
    """``x`` filtered along each of ``dims`` with the same odd number of weights, zeros outside."""
    line = weights.to(x).view(1, 1, -1)
    for dim in dims:
        turned = x.transpose(dim, -1)
        flat = functional.conv1d(turned.reshape(-1, 1, turned.shape[-1]), line, padding=len(weights) // 2)
        x = flat.view(turned.shape).transpose(dim, -1)
    return x
