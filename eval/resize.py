"""Resizing to an extractor's input, as the libraries of the field do it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

RESIZES = ("clean", "legacy")


def resize(pixels: Tensor, side: int, how: str = "clean") -> Tensor:
    """(N, 3, H, W) values in 0 to 255 -> (N, 3, side, side) float32, aspect ratio not kept.

    "clean" is clean-fid's (Parmar et al., 2022): bicubic with antialiasing, not rounded. "legacy" is that of the first
    FID code: bilinear without antialiasing, with TensorFlow 1's pixel positions. A picture of the right size stays.
    """
    if how not in RESIZES:
        raise ValueError(f"resize is one of {', '.join(RESIZES)}, not {how!r}")
    pixels = pixels.to(torch.float32)
    if pixels.shape[2:] == (side, side):
        return pixels
    if how == "clean":
        return F.interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(0, 255)
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    legacy: Tensor = interpolate_bilinear_2d_like_tensorflow1x(pixels, size=(side, side), align_corners=False)
    return legacy
