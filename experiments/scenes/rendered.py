"""Rendered scenes as lazy images for the evaluation: the real images of the embedded world, at any size."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import connection, parent_process
from pathlib import Path
from threading import Thread

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from experiments.scenes.renderer.scene import Scene, render, sample_scenes

RENDERER = Path(__file__).parent / "renderer"
FEW_PIXELS = 2**18  # are rendered as fast as two processes start and render them


@cache
def renderer_digest() -> str:
    """SHA-256 of the renderer's source, so that a changed renderer invalidates cached features."""
    sources = sorted(RENDERER.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def renderers(pixels: int) -> Executor:
    """What renders scenes of so many pixels in total: `single_threaded_processes`, or a thread for a few."""
    return single_threaded_processes() if pixels > FEW_PIXELS else ThreadPoolExecutor(1)


def single_threaded_processes() -> ProcessPoolExecutor:
    """One process for each core, each with one thread of numpy's BLAS: in matrices as small as those of the renderer,
    more threads mostly wait for each other. They end with this process, even if it is killed.
    """
    return ProcessPoolExecutor(initializer=start_worker)


def start_worker() -> None:
    threadpool_limits(1)
    Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """A pool's processes hold both ends of its queue, so that they would wait for work from a dead parent forever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@dataclass(frozen=True)
class RenderedImage:
    """`eval.images.LazyImage` of a scene, rendered on access."""

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


def rendered_images(count: int, seed: int, height: int, width: int) -> list[RenderedImage]:
    """The first ``count`` scenes of `sample_scenes` with ``seed``, at one size."""
    scenes = enumerate(sample_scenes(count, seed))
    return [RenderedImage(f"real-{index}", scene, height, width) for index, scene in scenes]
