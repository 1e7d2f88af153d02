"""Re-dilation: a convolution whose taps are spread by a factor, integer or fractional (paper section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def redilated_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, dilation: float, stride: int | tuple[int, int] = 1
) -> Tensor:
    """Convolve with the kernel's taps ``dilation`` cells apart, with zero padding.

    An integer d is an ordinary dilated convolution. A fractional d is, as in the paper,
    interp_{1/s}(conv_{ceil(d)}(interp_s(x))) with s = ceil(d) / d and bilinear interpolation: the input is enlarged
    until the next integer dilation spans what d spans in the original.

    Args:
        x: (N, C_in, H, W) floating point.
        weight: (C_out, C_in, k, k), k odd.
        bias: (C_out,) or None.
        dilation: factor d >= 1; 1 is the plain convolution.
        stride: of the plain convolution.

    Returns:
        (N, C_out, ceil(H / stride), ceil(W / stride)): the size the plain convolution with padding k // 2 gives.

    Raises:
        ValueError: ``dilation`` below 1 or an even kernel, for which no padding keeps the size.
    """
    if not dilation >= 1:
        raise ValueError(f"dilation must be at least 1, not {dilation}")
    if weight.shape[-2] % 2 == 0 or weight.shape[-1] % 2 == 0:
        raise ValueError(f"re-dilation needs an odd kernel, not {tuple(weight.shape[-2:])}")
    d = math.ceil(dilation)
    padding = (d * (weight.shape[-2] // 2), d * (weight.shape[-1] // 2))
    if d == dilation:
        return F.conv2d(x, weight, bias, stride, padding, d)
    vertical, horizontal = (stride, stride) if isinstance(stride, int) else stride
    height, width = x.shape[-2:]
    scale = d / dilation
    enlarged = resized(x, round(scale * height), round(scale * width))
    y = F.conv2d(enlarged, weight, bias, stride, padding, d)
    return resized(y, -(-height // vertical), -(-width // horizontal))


def resized(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resize of (N, C, H, W) to (N, C, height, width)."""
    resized: Tensor = F.interpolate(x, (height, width), mode="bilinear", align_corners=False)
    return (
        resized
        if not x.is_contiguous(memory_format=torch.channels_last)
        else resized.contiguous(memory_format=torch.channels_last)
    )
