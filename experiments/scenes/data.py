"""Rendered training sets, cached as arrays; the seeds of training, validation, prompts and search never overlap."""

from __future__ import annotations

import hashlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.scenes.render import Scene, render, sample_scenes

# Streams of `sample_scenes`: one seed for each purpose.
TRAIN_SEED, VALIDATION_SEED, COUNTING_SEED, LARGE_SEED = 101, 202, 303, 404


def counting_scenes(n: int, seed: int) -> list[Scene]:
    """Scenes with 1 to 16 copies, uniformly."""
    copies = np.random.default_rng([seed, 2]).integers(1, 17, size=n)
    return [
        Scene(s.object, s.colour, s.background, s.seed, copies=int(c))
        for s, c in zip(sample_scenes(n, seed), copies, strict=True)
    ]


def rendered(scenes: list[Scene], size_px: int, cache: Path) -> NDArray[np.uint8]:
    """(N, size, size, 3) uint8 pictures of ``scenes``, drawn in parallel once and memory-mapped afterwards from a file
    beside ``cache`` whose name holds a hash of the scenes.
    """
    key = hashlib.sha256(repr((scenes, size_px)).encode()).hexdigest()[:8]
    cache = cache.with_name(f"{cache.stem}-{key}.npy")
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        draw = partial(render, height=size_px, width=size_px)
        with ProcessPoolExecutor() as pool:
            pictures = list(tqdm(pool.map(draw, scenes, chunksize=64), total=len(scenes), desc=f"draw {cache.stem}"))
        temporary = cache.with_suffix(".tmp.npy")
        np.save(temporary, np.stack(pictures))
        temporary.replace(cache)
    return np.load(cache, mmap_mode="r")
