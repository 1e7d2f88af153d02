"""Rendered scenes as pictures that the evaluation reads: real images of the embedded world, at any size."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.scenes.render import Scene, render, sample_scenes

RENDERER = ("render.py", "objects.py", "backgrounds.py", "shapes.py")


@cache
def renderer_digest() -> str:
    """Changes with the renderer's source."""
    here = Path(__file__).parent
    return hashlib.sha256(b"".join((here / name).read_bytes() for name in RENDERER)).hexdigest()


@dataclass(frozen=True)
class RenderedPicture:
    """`eval.images.Picture` of a scene that is drawn when it is read."""

    name: str
    scene: Scene
    height: int
    width: int

    def stamp(self) -> str:
        return self.digest()

    def digest(self) -> str:
        described = f"{self.scene} {self.height}x{self.width} {renderer_digest()}"
        return hashlib.sha256(described.encode()).hexdigest()

    def size(self) -> tuple[int, int]:
        return self.height, self.width

    def pixels(self) -> NDArray[np.uint8]:
        return render(self.scene, self.height, self.width)


def rendered_pictures(count: int, seed: int, height: int, width: int) -> list[RenderedPicture]:
    """``count`` scenes of `sample_scenes` at a size."""
    scenes = enumerate(sample_scenes(count, seed))
    return [RenderedPicture(f"real-{index}", scene, height, width) for index, scene in scenes]
