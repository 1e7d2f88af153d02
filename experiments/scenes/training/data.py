"""Rendered training sets, cached as arrays. Training, validation, prompts and parameter search use disjoint seeds."""

from __future__ import annotations

import hashlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from eval.files import open_atomically
from experiments.scenes.renderer.scene import Scene, render, sample_scenes

# Seeds of `sample_scenes`, one for each purpose.
TRAIN_SEED, VALIDATION_SEED, COUNTING_SEED, LARGE_SEED = 101, 202, 303, 404


def counting_scenes(n: int, seed: int) -> list[Scene]:
    """Sample ``n`` scenes with 1 to 16 copies, uniformly distributed."""
    copies = np.random.default_rng([seed, 2]).integers(1, 17, size=n)
    return [
        Scene(s.object, s.colour, s.background, s.seed, copies=int(c))
        for s, c in zip(sample_scenes(n, seed), copies, strict=True)
    ]


def rendered(scenes: list[Scene], size_px: int, cache: Path) -> NDArray[np.uint8]:
    """Render ``scenes`` in parallel, or load them from the cache.

    Args:
        scenes: scenes to render.
        size_px: height and width.
        cache: path of the cache; a hash of the scenes and the size is appended to its name.

    Returns:
        (N, size, size, 3) uint8, memory-mapped.
    """
    key = hashlib.sha256(repr((scenes, size_px)).encode()).hexdigest()[:8]
    cache = cache.with_name(f"{cache.stem}-{key}.npy")
    if not cache.exists():
        render_square = partial(render, height=size_px, width=size_px)
        with ProcessPoolExecutor() as pool:
            results = pool.map(render_square, scenes, chunksize=64)
            images = list(tqdm(results, total=len(scenes), desc=f"rendering {cache.stem}"))
        with open_atomically(cache) as stream:
            np.save(stream, np.stack(images))
    return np.load(cache, mmap_mode="r")
