"""The sizes of a cascade's stages, as (height, width) in pixels, from the training size to the target."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from baselines.upscale import base_size

Size = tuple[int, int]


def start_size(pipe: Any, height: int, width: int) -> Size:
    """Size of the first stage: about the training area with the target's aspect ratio, on no side above the target."""
    base = base_size(pipe, height, width)
    return min(base[0], height), min(base[1], width)


def side_ratio(base: Size, target: Size) -> float:
    """By how much the sides grow, the geometric mean of both."""
    return math.sqrt(target[0] * target[1] / (base[0] * base[1]))


def doublings(base: Size, target: Size) -> int:
    """Number of enlargements by about two, at least one."""
    return max(1, round(math.log2(side_ratio(base, target))))


def rounded(side: float, multiple: int) -> int:
    return max(multiple, round(side / multiple) * multiple)


def linear_sizes(base: Size, target: Size, count: int, multiple: int) -> list[Size]:
    """``count`` sizes from ``base`` to ``target`` whose sides grow by equal amounts, rounded to ``multiple``.

    A size that equals the one before is left out: with ``base`` equal to ``target`` there is one size.
    """
    return sizes_between(base, target, count, multiple, lambda low, high, x: low + x * (high - low))


def geometric_sizes(base: Size, target: Size, count: int, multiple: int) -> list[Size]:
    """``count`` sizes whose sides grow by equal factors; see `linear_sizes`."""
    return sizes_between(base, target, count, multiple, lambda low, high, x: low * (high / low) ** x)


def sizes_between(
    base: Size, target: Size, count: int, multiple: int, at: Callable[[int, int, float], float]
) -> list[Size]:
    """See `linear_sizes`; ``at`` (low, high, share of the way) is a side."""
    found = [base]
    for index in range(1, count):
        height, width = (
            rounded(at(low, high, index / (count - 1)), multiple) for low, high in zip(base, target, strict=True)
        )
        size = target if index == count - 1 else (height, width)
        if size != found[-1]:
            found.append(size)
    return found
