"""What of an image is scored: all of it, or crops. Crop positions follow from a seed and the image's name or index, so
they do not depend on batches or on resuming.

Scores of crops see the fine detail that is lost when a whole image is resized to the extractor's input, but not the
composition: direct inference does well on them. Read them beside scores of whole images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image


class Cropping(Protocol):
    """Which crops of an image are scored."""

    @property
    def count(self) -> int:
        """Number of crops per image."""

    def __str__(self) -> str:
        """Everything that decides the crops, for caches and protocols."""

    def crops(self, image: np.ndarray, name: str, index: int) -> np.ndarray:
        """(count, h, w, 3) uint8 crops of an (H, W, 3) uint8 image with this name and index in its set."""


@dataclass(frozen=True)
class Whole:
    """The uncropped image."""

    count = 1

    def __str__(self) -> str:
        return "whole images"

    def crops(self, image: np.ndarray, name: str, index: int) -> np.ndarray:
        """(1, H, W, 3): the image itself."""
        return image[None]


WHOLE = Whole()


@dataclass(frozen=True)
class Crops:
    """``count`` square crops of ``size`` pixels at uniform random positions, not resized.

    Positions are seeded by the image's name: all methods get the same crops for the same prompt.
    """

    size: int
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.count < 1:
            raise ValueError(f"crops need a size and a count of at least 1, not {self.size} and {self.count}")

    def __str__(self) -> str:
        return f"{self.count} crops of {self.size}x{self.size} per image, by name, seed {self.seed}"

    def positions(self, name: str, height: int, width: int) -> list[tuple[int, int]]:
        """(top, left) of each crop of the image ``name``; ValueError if the image is smaller than a crop."""
        if min(height, width) < self.size:
            raise ValueError(
                f"{name} is {height}x{width}, smaller than a crop of {self.size}: images are never enlarged"
            )
        rng = keyed_generator(f"{self.seed}:{name}")
        tops = rng.integers(0, height - self.size + 1, size=self.count)
        lefts = rng.integers(0, width - self.size + 1, size=self.count)
        return list(zip(tops.tolist(), lefts.tolist(), strict=True))

    def crops(self, image: np.ndarray, name: str, index: int) -> np.ndarray:
        """(count, size, size, 3) uint8; ValueError if the image is smaller than a crop."""
        corners = self.positions(name, *image.shape[:2])
        return np.stack([image[top : top + self.size, left : left + self.size] for top, left in corners])


@dataclass(frozen=True)
class Patches:
    """Patches at random scales, as any-resolution GANs are scored (Chai et al. 2022, arXiv 2204.07156).

    A random square with the image's shorter side is downsampled to s pixels, s uniform in ``size`` to ``largest``,
    and a patch of ``size`` pixels is cropped from it. Scale and position are seeded by the image's index in its set,
    so real and generated images get the same patches.

    Args:
        size: side of a patch in pixels.
        largest: shorter side of the generated images; real images below it are refused.
        count: patches per image.
    """

    size: int
    largest: int
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.largest or self.count < 1:
            raise ValueError(
                f"patches need 1 <= size <= largest and a count of at least 1, "
                f"not {self.size}, {self.largest} and {self.count}"
            )

    def __str__(self) -> str:
        scales = f"of {self.size}x{self.size} at scales {self.size} to {self.largest}"
        return f"{self.count} patches {scales} per image, by index, seed {self.seed}"

    def crops(self, image: np.ndarray, name: str, index: int) -> np.ndarray:
        """(count, size, size, 3) uint8; ValueError if the image's shorter side is below ``largest``."""
        height, width = image.shape[:2]
        side = min(height, width)
        if side < self.largest:
            raise ValueError(f"{name} is {height}x{width}, below {self.largest}: images are never enlarged")
        rng, source = keyed_generator(f"{self.seed}:{index}"), Image.fromarray(image)
        patches = []
        for _ in range(self.count):
            scaled = int(rng.integers(self.size, self.largest + 1))
            down, right, down_inside, right_inside = rng.random(4)
            top, left = down * (height - side), right * (width - side)
            free, step = scaled - self.size, side / scaled
            top += round(down_inside * free) * step
            left += round(right_inside * free) * step
            # Resizing only the patch's region gives the same inner pixels as resizing the whole square.
            box = (left, top, min(left + self.size * step, width), min(top + self.size * step, height))
            patches.append(np.asarray(source.resize((self.size, self.size), Image.Resampling.LANCZOS, box)))
        return np.stack(patches)


def keyed_generator(key: str) -> np.random.Generator:
    """A random generator seeded by the SHA-256 of a string."""
    return np.random.default_rng(np.frombuffer(hashlib.sha256(key.encode()).digest(), dtype=np.uint32))


# Name -> cropping, given the side of the extractor's input and the shorter side of the generated images.
PRESETS: dict[str, Callable[[int, int], Cropping]] = {
    "native": lambda side, generated: Crops(side, 10),  # pFID of ScaleCrafter's successors
    "fidc1024": lambda side, generated: Crops(1024, 10),  # resized by the extractor
    "anyres": lambda side, generated: Patches(256, generated, 10),
}


def parse_crops(text: str, side: int, generated: int) -> Cropping:
    """The cropping for a preset's name or ``SIZE:COUNT``.

    Args:
        side: side of the extractor's input in pixels.
        generated: shorter side of the generated images in pixels.

    Raises:
        ValueError: any other text, or crops larger than the generated images.
    """
    size, colon, count = text.partition(":")
    if text in PRESETS:
        cropping = PRESETS[text](side, generated)
    elif colon and size.isdecimal() and count.isdecimal():
        cropping = Crops(int(size), int(count))
    else:
        raise ValueError(f"unknown crops {text!r}: choose from {', '.join(PRESETS)} or SIZE:COUNT, as in 299:10")
    if isinstance(cropping, Crops) and cropping.size > generated:
        raise ValueError(
            f"crops of {cropping.size} pixels do not fit into images of {generated}, which are never enlarged: "
            "choose smaller crops"
        )
    return cropping
