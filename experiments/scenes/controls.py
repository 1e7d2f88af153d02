"""Control rows of a table on scenes: real images scored as if they had been generated, untouched or corrupted.

`RealScenes` is the floor that a perfect generator would reach with the same number of images; with a corruption it
shows how much of a known fault each score sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from baselines.method import Calls, Request
from experiments.scenes.rendered import renderer_digest
from experiments.scenes.renderer.scene import BACKGROUNDS, COLOURS, OBJECTS, Scene, render

Corruption = Callable[[Image.Image], Image.Image]


def blur(image: Image.Image) -> Image.Image:
    """Gaussian blur by 1% of the shorter side."""
    return image.filter(ImageFilter.GaussianBlur(min(image.size) / 100))


def enlarge(image: Image.Image, factor: int = 4) -> Image.Image:
    """Downsampled and enlarged again: what an image of a quarter of the side has to show."""
    small = image.resize((image.width // factor, image.height // factor), Image.Resampling.LANCZOS)
    return small.resize(image.size, Image.Resampling.LANCZOS)


def grid(image: Image.Image, factor: int = 4, shift: int = 4) -> Image.Image:
    """The artefact of dilated kernels: interleaved sub-images that do not match, each shifted by some pixels."""
    pixels, shifts = np.asarray(image), np.random.default_rng(0).integers(-shift, shift + 1, (factor, factor, 2))
    mixed = np.empty_like(pixels)
    for row in range(factor):
        for column in range(factor):
            moved = np.roll(pixels, tuple(shifts[row, column]), axis=(0, 1))
            mixed[row::factor, column::factor] = moved[row::factor, column::factor]
    return Image.fromarray(mixed)


def jpeg(image: Image.Image) -> Image.Image:
    """JPEG of quality 15."""
    stream = BytesIO()
    image.save(stream, "JPEG", quality=15)
    return Image.open(stream).convert("RGB")


CORRUPTIONS: Mapping[str, Corruption] = {
    "blur": blur,
    "enlarge": enlarge,
    "grid": grid,
    "jpeg": jpeg,
}


@dataclass(frozen=True)
class RealScenes:
    """A rendered scene with the prompted factors and the seed of the image; the reference never contains it.

    Args:
        corruption: a name in ``CORRUPTIONS``; None leaves the images as they are.

    Raises:
        ValueError: unknown corruption; from `generate`, a prompt that is not a caption of a scene.
    """

    corruption: str | None = None

    def __post_init__(self) -> None:
        if self.corruption not in (None, *CORRUPTIONS):
            raise ValueError(f"corruption is null or one of {', '.join(CORRUPTIONS)}, not {self.corruption!r}")

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        return {"corruption": self.corruption, "renderer": renderer_digest()}

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """None: no U-Net is involved."""
        return []

    def generate(self, pipe: Any, request: Request) -> NDArray[np.uint8]:
        images = []
        for prompt, seed in zip(request.prompts, request.seeds, strict=True):
            if prompt not in captions():
                raise ValueError(f"method=real renders captions of scenes, and {prompt!r} is none: use prompts=scenes")
            factors = captions()[prompt]
            image = render(Scene(*factors, seed=seed), request.height, request.width)
            if self.corruption is not None:
                image = np.asarray(CORRUPTIONS[self.corruption](Image.fromarray(image)))
            images.append(image)
        return np.stack(images)


@cache
def captions() -> dict[str, tuple[str, str, str]]:
    """(object, colour, background) of every caption."""
    factors = [(o, c, b) for o in OBJECTS for c in COLOURS for b in BACKGROUNDS]
    return {Scene(*each, seed=0).caption: each for each in factors}
