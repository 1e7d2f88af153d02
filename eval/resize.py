"""Resizing to an extractor's input with the implementations of clean-fid and torch-fidelity."""

from __future__ import annotations

import numpy as np
import torch
from cleanfid.resize import make_resizer
from torch import Tensor

RESIZES = ("clean", "legacy")


def resize(pixels: Tensor, side: int, how: str = "clean") -> Tensor:
    """Resize images to a square without keeping the aspect ratio. Images of that size are returned unchanged.

    "clean" is clean-fid's (Parmar et al. 2022, arXiv 2104.11222): Pillow's antialiased bicubic filter on each channel
    in float, not quantised, on the CPU. "legacy" is that of the original FID code: bilinear without antialiasing, with
    the pixel positions of TensorFlow 1.

    Args:
        pixels: (N, 3, H, W) with values in [0, 255], uint8 or float.
        side: height and width of the result in pixels.
        how: one of ``RESIZES``.

    Returns:
        (N, 3, side, side) float32 with values in [0, 255], on the device of ``pixels``.
    """
    if how not in RESIZES:
        raise ValueError(f"unknown resize {how!r}: choose from {', '.join(RESIZES)}")
    if pixels.shape[2:] == (side, side):
        return pixels.to(torch.float32)
    if how == "clean":
        return clean_resize(pixels, side)
    # The import takes seconds: torch-fidelity loads all of its metrics.
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    legacy: Tensor = interpolate_bilinear_2d_like_tensorflow1x(
        pixels.to(torch.float32), size=(side, side), align_corners=False
    )
    return legacy


def clean_resize(pixels: Tensor, side: int) -> Tensor:
    """`resize` with clean-fid's own resizer. Serial: measured, threads do not make it faster."""
    resizer = make_resizer("PIL", quantize_after=False, filter="bicubic", output_size=(side, side))
    images = pixels.permute(0, 2, 3, 1).cpu().numpy()
    resized = np.stack([resizer(image) for image in images])
    return torch.from_numpy(resized).permute(0, 3, 1, 2).to(pixels.device)
