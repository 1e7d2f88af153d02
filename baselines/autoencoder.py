"""Decoding and encoding as the pipelines do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from scalecrafter.pipeline import is_sdxl


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
