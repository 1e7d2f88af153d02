"""Sizes of images as people name them: a multiple of the training area and an aspect."""

from __future__ import annotations

import math
import re

AREAS = (4.0, 6.25, 8.0, 16.0)  # times the training area
ASPECTS = ("1:1", "4:3", "3:2", "16:9", "2:1", "3:4", "2:3", "9:16", "1:2")  # width to height
LARGEST = 20.0  # times the training area: an aspect rounds to a little more than 16
LONGEST = 8.0  # aspect, either way
ASPECT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:[:/x]\s*(\d+(?:\.\d+)?)\s*)?")


def parse_aspect(text: str) -> float:
    """Width over height, from "16:9" or "1.78"; ValueError for anything else, or above 8:1 or below 1:8."""
    found = ASPECT.fullmatch(str(text))
    sides = (float(found[1]), float(found[2] or 1)) if found else (0.0, 0.0)
    if min(sides) <= 0 or not 1 / LONGEST <= sides[0] / sides[1] <= LONGEST:
        raise ValueError(f"the aspect is width to height, as 16:9, between 1:8 and 8:1, not {text!r}")
    return sides[0] / sides[1]


def size_for(area: float, aspect: float, training: tuple[int, int], multiple: int) -> tuple[int, int]:
    """(height, width) in pixels, multiples of ``multiple``, of about ``area`` times the ``training`` size's area.

    Args:
        aspect: width over height.
    """
    pixels = area * training[0] * training[1]
    sides = math.sqrt(pixels / aspect), math.sqrt(pixels * aspect)
    height, width = (max(multiple, round(side / multiple) * multiple) for side in sides)
    return height, width


def check_area(height: int, width: int, training: tuple[int, int]) -> None:
    """ValueError for a size that the page does not draw, because it would take too long."""
    ratio = height * width / (training[0] * training[1])
    if ratio > LARGEST:
        raise ValueError(
            f"{height}x{width} (height x width) is {ratio:,.0f} times the training area {training[0]}x{training[1]}, "
            f"and this page draws up to {LARGEST:g} times: choose a smaller size"
        )
