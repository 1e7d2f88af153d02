"""Crops at native resolution, at seeded positions keyed by the image's name: no order, batch or resume moves them.

A score of crops sees the detail that resizing a whole image to the extractor's input takes away, and not the
composition: direct inference does well in it. Read it beside a score of whole images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Crops:
    """``count`` square crops of ``size`` pixels from each image, at uniform positions. Never resized."""

    size: int
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.count < 1:
            raise ValueError(f"crops need a size and a count of at least 1, not {self.size} and {self.count}")

    def positions(self, name: str, height: int, width: int) -> list[tuple[int, int]]:
        """(top, left) of each crop of the image called ``name``; ValueError if it is smaller than a crop."""
        if min(height, width) < self.size:
            raise ValueError(
                f"{name} is {height}x{width}, smaller than a crop of {self.size}: crops are never resized"
            )
        key = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()
        rng = np.random.default_rng(np.frombuffer(key, dtype=np.uint32))
        tops = rng.integers(0, height - self.size + 1, size=self.count)
        lefts = rng.integers(0, width - self.size + 1, size=self.count)
        return list(zip(tops.tolist(), lefts.tolist(), strict=True))

    def cut(self, image: np.ndarray, name: str) -> np.ndarray:
        """(count, size, size, 3) uint8 crops of an (H, W, 3) image."""
        corners = self.positions(name, *image.shape[:2])
        return np.stack([image[top : top + self.size, left : left + self.size] for top, left in corners])


def large_enough(paths: Sequence[Path], side: int) -> list[Path]:
    """The images whose shorter side is at least ``side`` pixels: real images below it are left out, never enlarged."""
    kept = []
    for path in paths:
        with Image.open(path) as image:
            if min(image.size) >= side:
                kept.append(path)
    return kept
