"""Re-dilation: convolution with an integer or fractional dilation factor (paper section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

Factor = float | tuple[float, float]  # one factor for both directions, or (vertical, horizontal)


def per_axis(factor: Factor) -> tuple[float, float]:
    """The factor as (vertical, horizontal)."""
    return factor if isinstance(factor, tuple) else (factor, factor)


def redilated_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, dilation: Factor, stride: int | tuple[int, int] = 1
) -> Tensor:
    """Convolve with the kernel's taps ``dilation`` positions apart, with zero padding (paper section 3.2).

    An integer d is an ordinary dilated convolution. A fractional d is, as in the paper,
    interp_{1/s}(conv_{ceil(d)}(interp_s(x))) with s = ceil(d) / d and bilinear interpolation: the input is enlarged
    so that the next integer dilation spans what d spans in the original. A d below one narrows the kernel by the same
    formula; it occurs when a layer with a small factor is dispersed as well.

    Args:
        x: (N, C_in, H, W) floating point.
        weight: (C_out, C_in, k, k), k odd.
        bias: (C_out,) or None.
        dilation: factor d > 0, or (vertical, horizontal) factors; 1 is the plain convolution.
        stride: of the plain convolution.

    Returns:
        (N, C_out, ceil(H / stride), ceil(W / stride)): the size the plain convolution with padding k // 2 gives.

    Raises:
        ValueError: ``dilation`` is not above 0, or the kernel is even, so that no padding keeps the size.
    """
    factors = per_axis(dilation)
    if not all(0 < d < math.inf for d in factors):
        raise ValueError(f"dilation must be above 0, not {dilation}")
    if weight.shape[-2] % 2 == 0 or weight.shape[-1] % 2 == 0:
        raise ValueError(f"re-dilation needs an odd kernel, not {tuple(weight.shape[-2:])}")
    whole = (math.ceil(factors[0]), math.ceil(factors[1]))
    padding = (whole[0] * (weight.shape[-2] // 2), whole[1] * (weight.shape[-1] // 2))
    if whole == factors:
        return F.conv2d(x, weight, bias, stride, padding, whole)
    vertical, horizontal = (stride, stride) if isinstance(stride, int) else stride
    height, width = x.shape[-2:]
    enlarged = resized(x, round(whole[0] / factors[0] * height), round(whole[1] / factors[1] * width))
    y = F.conv2d(enlarged, weight, bias, stride, padding, whole)
    return resized(y, -(-height // vertical), -(-width // horizontal))


def resized(x: Tensor, height: int, width: int) -> Tensor:
    """Resize (N, C, H, W) bilinearly to (N, C, height, width), keeping the memory format."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    y: Tensor = F.interpolate(x, (height, width), mode="bilinear", align_corners=False)
    return y.contiguous(memory_format=torch.channels_last) if last else y
