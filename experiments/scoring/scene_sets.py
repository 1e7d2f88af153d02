"""Sets of scenes to repeat an experiment with: a pool of rendered scenes, and references, generated images and base
samples taken from it at random.

Generated images of a made-up method show four copies of the object with some probability and are real scenes
otherwise. Scenes are sampled with independent factors or, as the benchmark's prompts are, balanced: each block of 144
holds every combination of object, colour and background once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eval.features import FeatureExtractor, images_to_features
from experiments.scenes.rendered import RenderedImage, rendered_images, renderers
from experiments.scenes.scene_counter import SceneCounter
from experiments.scenes.scene_features import SceneFeatures

DESIGNS = ("independent", "balanced")
METHODS = {"30% repeat": 0.3, "60% repeat": 0.6}  # share of images with four copies
COPIES = 4
COMBINATIONS = 144
POOL_SEED = 11  # no other set of scenes has it


class FeaturesAndCopies:
    """The structure features (64) followed by the number of objects, as one `eval.features.FeatureExtractor`."""

    def __init__(self) -> None:
        self.scenes, self.count = SceneFeatures(), SceneCounter()
        self.name, self.side, self.resizing = "scenes and copies", self.scenes.side, self.scenes.resizing
        self.dim, self.digest = self.scenes.dim + 1, f"{self.scenes.digest} {self.count.digest}"

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.column_stack([self.scenes(images), self.count(images)])


@dataclass(frozen=True)
class Pool:
    """Rendered scenes to sample from, with one row for each, ordered by combination.

    Args:
        single: (COMBINATIONS * each, dim + 1) features and number of copies of scenes with one object.
        repeated: the same of these scenes with four.
    """

    single: np.ndarray
    repeated: np.ndarray


def render_pool(scenes: int, side: int, cache_dir: Path) -> Pool:
    """A pool of rendered scenes at side x side pixels; ValueError unless ``scenes`` is a multiple of 144."""
    if scenes < 1 or scenes % COMBINATIONS:
        raise ValueError(f"a pool holds all {COMBINATIONS} combinations equally often: {scenes} is not a multiple")
    images = rendered_images(scenes, POOL_SEED, side, side)
    images.sort(key=lambda image: (image.scene.object, image.scene.colour, image.scene.background))
    extractor, threads = FeaturesAndCopies(), torch.get_num_threads()
    with renderers(2 * scenes * side**2) as pool:
        torch.set_num_threads(1)  # the renderers occupy all cores: more threads make the small network slower
        single, repeated = (
            pool_features(version, extractor, cache_dir, pool)
            for version in (images, [replace(i, scene=replace(i.scene, copies=COPIES)) for i in images])
        )
    torch.set_num_threads(threads)
    return Pool(single, repeated)


def pool_features(
    images: Sequence[RenderedImage], extractor: FeatureExtractor, cache_dir: Path, pool: Executor
) -> np.ndarray:
    (found,) = images_to_features(images, extractor, cache_dir=cache_dir, pool=pool)
    return found.astype(np.float64)


def combinations(rng: np.random.Generator, n: int, design: str) -> np.ndarray:
    """(n,) combination of factors of each scene."""
    if design == "independent":
        return rng.integers(COMBINATIONS, size=n)
    return np.concatenate([rng.permutation(COMBINATIONS) for _ in range(-(-n // COMBINATIONS))])[:n]


def pick(rng: np.random.Generator, wanted: np.ndarray, free: np.ndarray) -> np.ndarray:
    """For each of the (n,) wanted combinations a row of the pool, each row once at most.

    Args:
        free: (COMBINATIONS, each) bool, which rows may be taken.

    Raises:
        ValueError: too few free rows of a combination.
    """
    order = np.where(free, rng.random(free.shape), 2.0).argsort(axis=1)
    by_combination = np.argsort(wanted, kind="stable")
    counts = np.bincount(wanted, minlength=COMBINATIONS)
    if (counts > free.sum(axis=1)).any():
        raise ValueError(f"the pool has too few scenes for sets of {len(wanted)}: render more")
    occurrence = np.empty(len(wanted), dtype=int)
    occurrence[by_combination] = np.concatenate([np.arange(count) for count in counts])
    return wanted * free.shape[1] + order[wanted, occurrence]


@dataclass(frozen=True)
class Sets:
    """Images for the same n prompts: (n, dim + 1) rows of the pool for real scenes, the base and each method."""

    real: np.ndarray
    base: np.ndarray
    methods: Mapping[str, np.ndarray]


def sample_sets(rng: np.random.Generator, pool: Pool, n: int, design: str, free: np.ndarray) -> Sets:
    """The base shows other scenes of the same combinations. A prompt that repeats with one method does so with those
    that repeat more often.
    """
    first, second = np.split(pick(rng, np.tile(combinations(rng, n, design), 2), free), 2)
    luck = rng.random((n, 1))
    methods = {
        name: np.where(luck < share, pool.repeated[first], pool.single[first]) for name, share in METHODS.items()
    }
    return Sets(pool.single[first], pool.single[second], methods)
