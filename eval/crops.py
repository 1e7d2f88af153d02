"""What of a picture is scored: the whole of it, or parts of it. Where parts lie follows from a seed and the picture's
name or place in its set: no batch or resume moves them.

A score of parts sees the detail that resizing a whole picture to the extractor's input takes away, and not the
composition: direct inference does well in it. Read it beside a score of whole pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image


class Cut(Protocol):
    """Which parts of a picture are scored."""

    @property
    def count(self) -> int:
        """Parts of one picture."""

    def __str__(self) -> str:
        """All that decides the parts, for caches and protocols."""

    def parts(self, image: np.ndarray, name: str, index: int) -> np.ndarray:
        """(count, h, w, 3) uint8 parts of an (H, W, 3) image called ``name``, the ``index``-th of its set."""


@dataclass(frozen=True)
class Whole:
    """The picture as it is."""

    count = 1

    def __str__(self) -> str:
        return "whole pictures"

    def parts(self, image: np.ndarray, name: str, index: int) -> np.ndarray:
        return image[None]


WHOLE = Whole()


@dataclass(frozen=True)
class Crops:
    """``count`` square crops of ``size`` pixels, at uniform positions that the picture's name decides: two methods are
    cut alike at the same prompt. Not resized.
    """

    size: int
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.count < 1:
            raise ValueError(f"crops need a size and a count of at least 1, not {self.size} and {self.count}")

    def __str__(self) -> str:
        return f"{self.count} crops of {self.size}x{self.size} a picture, by name, seed {self.seed}"

    def positions(self, name: str, height: int, width: int) -> list[tuple[int, int]]:
        """(top, left) of each crop of the image called ``name``; ValueError if it is smaller than a crop."""
        if min(height, width) < self.size:
            raise ValueError(
                f"{name} is {height}x{width}, smaller than a crop of {self.size}: crops are never enlarged"
            )
        rng = keyed_generator(f"{self.seed}:{name}")
        tops = rng.integers(0, height - self.size + 1, size=self.count)
        lefts = rng.integers(0, width - self.size + 1, size=self.count)
        return list(zip(tops.tolist(), lefts.tolist(), strict=True))

    def parts(self, image: np.ndarray, name: str, index: int) -> np.ndarray:
        corners = self.positions(name, *image.shape[:2])
        return np.stack([image[top : top + self.size, left : left + self.size] for top, left in corners])


@dataclass(frozen=True)
class Patches:
    """Patches at random scales, as any-resolution GANs are scored (Chai et al., 2022, arXiv 2204.07156): of a random
    square with the picture's shorter side, reduced to s pixels, s uniform in ``size`` to ``largest``, ``size`` pixels
    are cut out. The index in the set decides scale and place, so real and generated pictures are cut alike.

    Args:
        largest: the generated pictures' shorter side; real pictures below it cannot be cut.
    """

    size: int
    largest: int
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.largest or self.count < 1:
            raise ValueError(f"patches of {self.size} pixels do not fit into {self.largest}, or there are none")

    def __str__(self) -> str:
        scales = f"of {self.size}x{self.size} at scales {self.size} to {self.largest}"
        return f"{self.count} patches {scales} a picture, by index, seed {self.seed}"

    def parts(self, image: np.ndarray, name: str, index: int) -> np.ndarray:
        height, width = image.shape[:2]
        side = min(height, width)
        if side < self.largest:
            raise ValueError(f"{name} is {height}x{width}, below {self.largest}: patches are never enlarged")
        rng, picture = keyed_generator(f"{self.seed}:{index}"), Image.fromarray(image)
        found = []
        for _ in range(self.count):
            scaled = int(rng.integers(self.size, self.largest + 1))
            down, right, down_inside, right_inside = rng.random(4)
            top, left = down * (height - side), right * (width - side)
            free, step = scaled - self.size, side / scaled
            top += round(down_inside * free) * step
            left += round(right_inside * free) * step
            # The filter sees only what lies under the patch: the same pixels as reducing the whole square first.
            box = (left, top, min(left + self.size * step, width), min(top + self.size * step, height))
            found.append(np.asarray(picture.resize((self.size, self.size), Image.Resampling.LANCZOS, box)))
        return np.stack(found)


def keyed_generator(key: str) -> np.random.Generator:
    return np.random.default_rng(np.frombuffer(hashlib.sha256(key.encode()).digest(), dtype=np.uint32))


# name -> cut, from the side of the extractor's input and the shorter side of the generated pictures
PRESETS: dict[str, Callable[[int, int], Cut]] = {
    "native": lambda side, generated: Crops(side, 10),  # pFID of ScaleCrafter's successors
    "fidc1024": lambda side, generated: Crops(1024, 10),  # then resized by the extractor
    "anyres": lambda side, generated: Patches(256, generated, 10),
}


def parse_crops(text: str, side: int, generated: int) -> Cut:
    """A preset's name or ``SIZE:COUNT``; ValueError for anything else, and for crops that do not fit."""
    size, colon, count = text.partition(":")
    if text in PRESETS:
        cut = PRESETS[text](side, generated)
    elif colon and size.isdecimal() and count.isdecimal():
        cut = Crops(int(size), int(count))
    else:
        raise ValueError(f"crops {text!r} are none of {', '.join(PRESETS)}, nor SIZE:COUNT, as in 299:10")
    if isinstance(cut, Crops) and cut.size > generated:
        raise ValueError(
            f"crops of {cut.size} pixels do not fit into {generated}, and none is enlarged: choose others"
        )
    return cut
