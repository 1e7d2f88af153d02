"""Rendered training sets, cached as arrays. Training, validation, prompts and parameter search use disjoint seeds."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from eval.files import open_atomically
from experiments.scenes.rendered import renderers
from experiments.scenes.renderer.scene import Scene, placement, render, sample_scenes

# Seeds of `sample_scenes`, one for each purpose; COUNTING_SEED to + 9 for sets of other shapes.
TRAIN_SEED, VALIDATION_SEED, COUNTING_SEED, LARGE_SEED, DETAIL_SEED, CLOSE_SEED = 101, 202, 303, 404, 606, 707
SAMPLED_SEED = 808
MOST_COPIES = 36
SINGLE_SHARE = 0.3  # of the scenes for counting
CROWDED_SHARE = 0.4  # of those with several

Spot = tuple[float, float, float]  # centre x, centre y and size of an object, see `placement`


def spots(scene: Scene) -> list[Spot]:
    """Where the objects of a scene are, in units of the short side from the centre of the frame."""
    return placement(scene)[1]


def with_copies(scene: Scene, copies: int) -> Scene:
    """The same scene with another number of objects."""
    return replace(scene, copies=copies)


def counting_scenes(n: int, seed: int) -> list[Scene]:
    """Sample ``n`` scenes: three tenths with one object, the others with 2 to 36, whose logarithms are uniform;
    four tenths of these are crowded.
    """
    rng = np.random.default_rng([seed, 2])
    several = np.exp(rng.uniform(np.log(1.5), np.log(MOST_COPIES + 0.5), size=n)).round().astype(int)
    copies = np.where(rng.random(n) < SINGLE_SHARE, 1, several)
    crowded = (copies > 1) & (rng.random(n) < CROWDED_SHARE)
    return [
        replace(scene, copies=int(count), crowded=bool(crowd))
        for scene, count, crowd in zip(sample_scenes(n, seed), copies, crowded, strict=True)
    ]


def close_ups(n: int, seed: int) -> list[Scene]:
    """Sample ``n`` close-ups, of a half to a quarter of the frame's sides."""
    zooms = 2 ** np.random.default_rng([seed, 2]).uniform(0.7, 2, size=n)
    return [replace(scene, zoom=round(float(z), 3)) for scene, z in zip(sample_scenes(n, seed), zooms, strict=True)]


def rendered(scenes: list[Scene], size_px: int | tuple[int, int], cache: Path) -> NDArray[np.uint8]:
    """Render ``scenes`` in parallel, or load them from the cache.

    Args:
        scenes: scenes to render.
        size_px: side of square images, or (height, width).
        cache: path of the cache; a hash of the scenes and the size is appended to its name.

    Returns:
        (N, height, width, 3) uint8, memory-mapped.
    """
    key = hashlib.sha256(repr((scenes, size_px)).encode()).hexdigest()[:8]
    cache = cache.with_name(f"{cache.stem}-{key}.npy")
    if not cache.exists():
        height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
        render_one = partial(render, height=height, width=width)
        with renderers(len(scenes) * height * width) as pool:
            results = pool.map(render_one, scenes, chunksize=64)
            images = list(tqdm(results, total=len(scenes), desc=f"rendering {cache.stem}"))
        with open_atomically(cache) as stream:
            np.save(stream, np.stack(images))
    return np.load(cache, mmap_mode="r")
