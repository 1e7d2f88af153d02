"""Dilated views of a latent: every s-th row and column of it, which show the whole image at about the training size.

Before they are taken, the latent is blurred, so that they do not alias.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from baselines.cascade.images import blur, gaussian


def pad_to_multiple(x: Tensor, scale: int) -> Tensor:
    """(..., rows, columns) with zeros above and on the left, so that ``scale`` divides both sides."""
    return functional.pad(x, (-x.shape[-1] % scale, 0, -x.shape[-2] % scale, 0))


def dilated_views(x: Tensor, scale: int) -> list[Tensor]:
    """The scale^2 views (..., rows / scale, columns / scale) of (..., rows, columns): view a scale + b has the rows
    a, a + scale, ... and the columns b, b + scale, ...
    """
    return [x[..., top::scale, left::scale] for top in range(scale) for left in range(scale)]


def interleave(views: Sequence[Tensor], scale: int) -> Tensor:
    """The inverse of `dilated_views`."""
    *batch, rows, columns = views[0].shape
    x = views[0].new_empty(*batch, rows * scale, columns * scale)
    for place, view in zip(dilated_views(x, scale), views, strict=True):
        place.copy_(view)
    return x


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each (C, rows, columns) of (N, C, rows, columns), both (N, 1, 1, 1)."""
    axes = (1, 2, 3)
    return x.mean(axes, keepdim=True), x.std(axes, keepdim=True)


def with_statistics(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """``x`` shifted and scaled to this mean and standard deviation, each of the batch by itself."""
    own_mean, own_deviation = statistics(x)
    return (x - own_mean) / own_deviation * deviation + mean


def blurred(x: Tensor, side: int, sigma: float) -> Tensor:
    """(N, C, rows, columns) after a Gaussian filter, with the mean and standard deviation of ``x`` again; computed in
    float32, in the dtype of ``x``.
    """
    exact = x.float()
    return with_statistics(blur(exact, gaussian(side, sigma), (2, 3)), *statistics(exact)).to(x.dtype)


def permutations(views: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """(views, *shape) independent uniform permutations of 0 to ``views`` - 1 along the first axis."""
    return torch.rand(views, *shape, generator=generator).argsort(0)
