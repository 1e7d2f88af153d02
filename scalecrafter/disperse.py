"""Dispersed convolution: a larger kernel that acts on an enlarged feature map as the trained kernel acts on the small
one (paper section 3.3).

The larger kernel is a linear function of the trained one, found by least squares over all feature maps of a small
size, so a single matrix disperses every kernel.
"""

from __future__ import annotations

from functools import cache, lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from scalecrafter.redilate import Factor, per_axis


def dispersion_transform(
    kernel_size: int = 3, dispersed_size: int = 5, feature_size: int = 3, scale: float = 2, eta: float = 0.05
) -> Tensor:
    """The matrix R with flattened larger kernel = R @ flattened kernel, both in row-major order (paper section 3.3).

    It minimises, summed over a basis x of all ``feature_size`` x ``feature_size`` maps, the squared structure error
    ||conv(up(x), larger) - up(conv(x, kernel))||^2 plus eta^2 times the squared pixel error
    ||conv(x, larger) - conv(x, kernel)||^2, with zero padding. ``up`` enlarges bilinearly to a side of
    scale * (n - 1) + 1, corners aligned.

    Args:
        kernel_size: side k of the trained kernel, odd.
        dispersed_size: side m of the larger kernel, odd.
        feature_size: side n of the maps, at least 2.
        scale: how much larger the image is that the larger kernel is for; scale * (n - 1) must be whole.
        eta: weight of the pixel errors.

    Returns:
        (m^2, k^2) float64.

    Raises:
        ValueError: invalid size or scale, or negative ``eta``.
    """
    return _transform(kernel_size, dispersed_size, feature_size, scale, eta).clone()


@lru_cache
def _transform(kernel_size: int, dispersed_size: int, feature_size: int, scale: float, eta: float) -> Tensor:
    if kernel_size % 2 == 0 or dispersed_size % 2 == 0 or not 1 <= kernel_size <= dispersed_size:
        raise ValueError(f"kernels must have an odd side and cannot shrink: {kernel_size} to {dispersed_size}")
    enlarged = scale * (feature_size - 1) + 1
    if feature_size < 2 or scale < 1 or enlarged != int(enlarged):
        raise ValueError(f"feature_size {feature_size} and scale {scale} do not give a whole enlarged size above 1")
    if eta < 0:
        raise ValueError(f"eta must be at least 0, not {eta}")
    count = feature_size**2
    maps = torch.eye(count, dtype=torch.float64).view(count, 1, feature_size, feature_size)

    def up(x: Tensor) -> Tensor:
        y: Tensor = F.interpolate(x, (int(enlarged),) * 2, mode="bilinear", align_corners=True)
        return y

    def responses(x: Tensor, side: int) -> Tensor:
        """(N, side^2, H, W): contribution of each kernel tap to each output position."""
        return F.unfold(x, side, padding=side // 2).view(len(x), side**2, *x.shape[2:])

    # One equation for each map and output position, linear in the larger kernel (left) and in the trained one (right).
    structure = responses(up(maps), dispersed_size), up(responses(maps, kernel_size))
    pixels = eta * responses(maps, dispersed_size), eta * responses(maps, kernel_size)
    left, right = (
        torch.cat([part.movedim(1, -1).flatten(0, -2) for part in side])
        for side in zip(structure, pixels, strict=True)
    )
    solution: Tensor = torch.linalg.lstsq(left, right, driver="gelsd").solution
    return solution


def disperse_kernel(weight: Tensor, transform: Tensor) -> Tensor:
    """Enlarge the kernels of a convolution (paper section 3.3).

    Args:
        weight: (C_out, C_in, k, k) floating point.
        transform: (m^2, k^2), as `dispersion_transform` gives it.

    Returns:
        (C_out, C_in, m, m): the larger kernels, in the dtype and on the device of ``weight``.

    Raises:
        ValueError: ``transform`` is for kernels of another size.
    """
    if weight.shape[-1] != weight.shape[-2] or transform.shape[1] != weight.shape[-1] * weight.shape[-2]:
        raise ValueError(
            f"the transform is for kernels of {transform.shape[1]} taps, not {weight.shape[-2]}x{weight.shape[-1]}"
        )
    side = round(transform.shape[0] ** 0.5)
    precise = torch.promote_types(weight.dtype, torch.float32)
    flat = weight.detach().to(precise).flatten(-2) @ transform.to(weight.device, precise).T
    return flat.unflatten(-1, (side, side)).to(weight.dtype)


def dispersed(weight: Tensor, factor: Factor, size: int, eta: float) -> tuple[Tensor, Factor]:
    """The kernels (C_out, C_in, k, k) of a convolution enlarged to ``size``, and the factor that is left: a larger
    kernel spans by itself what a factor of (size - 1) / (k - 1) would.

    Made in each call and not kept: those of Stable Diffusion at 16 times the area take more memory than its U-Net,
    making them is 21 GFLOP a step, and so they follow every change of the weight (LoRA, offloading).
    """
    (vertical, horizontal), scale = per_axis(factor), (size - 1) / (weight.shape[-1] - 1)
    return disperse_kernel(weight, transform_for(weight, size, eta)), (vertical / scale, horizontal / scale)


def transform_for(weight: Tensor, size: int, eta: float) -> Tensor:
    """`dispersion_transform` for the kernels of a convolution, in their precision or float32, on their device."""
    return transform_on(weight.device, torch.promote_types(weight.dtype, torch.float32), weight.shape[-1], size, eta)


@torch.compiler.assume_constant_result
def transform_on(device: torch.device, dtype: torch.dtype, side: int, size: int, eta: float) -> Tensor:
    """`dispersion_transform` on a device, where it stays: each copy to a GPU would wait for it."""
    return _transform_on(device, dtype, side, size, eta)


@cache
def _transform_on(device: torch.device, dtype: torch.dtype, side: int, size: int, eta: float) -> Tensor:
    return dispersion_transform(side, size, scale=(size - 1) / (side - 1), eta=eta).to(device, dtype)
