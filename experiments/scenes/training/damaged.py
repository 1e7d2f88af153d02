"""Crops of rendered scenes with known damage, for the detail network: cached, because damaging them takes longer than
a training step.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from eval.corruptions import CORRUPTIONS, STEPS
from eval.files import open_atomically
from experiments.scenes.rendered import renderers
from experiments.scenes.renderer.scene import BACKGROUNDS, Scene, render, sample_scenes

CROP_PX = 64  # what the network is trained on
SPARE_PX = 8  # stored beyond it, so that each step sees another part
WINDOW_PX = 96  # what is damaged: the crop lies inside, so that it seldom shows the border of the damage
# Kind of `eval.corruptions` -> the strength that does nothing.
HARMLESS = {
    "blur": 0.0,
    "enlarged": 1.0,
    "noise": 0.0,
    "speckle": 0.0,
    "dilation grid": 0.0,
    "JPEG": 95.0,
    "ringing": 0.0,
}
DAMAGES = ("none", *HARMLESS)
UNTOUCHED_SHARE = 0.25
SLIGHTEST = 0.15  # below this a shift or a factor rounds to nothing


def damage(pixels: NDArray[np.uint8], kind: str, strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Damage (H, W, 3) uint8 pixels.

    Args:
        pixels: what is damaged.
        kind: one of ``DAMAGES``.
        strength: 0 for nothing to 1 for the last step of `eval.corruptions`; between the steps it is interpolated.
        rng: for noise and displacements.
    """
    if kind == "none":
        return pixels
    corruption = CORRUPTIONS[kind]
    amount = np.interp(strength * STEPS[-1], (0, *STEPS), (HARMLESS[kind], *corruption.strengths))
    return corruption.apply(pixels, float(amount), rng)


@dataclass(frozen=True)
class CropSource:
    """``scenes`` scenes rendered at ``size_px``, each with ``crops`` crops."""

    size_px: int
    scenes: int
    crops: int


@dataclass(frozen=True)
class DamagedCrops:
    """(N, 72, 72, 3) uint8 pixels, and (N,) indices of damage and background and strengths in [0, 1]."""

    pixels: NDArray[np.uint8]
    damage: NDArray[np.int64]
    background: NDArray[np.int64]
    strength: NDArray[np.float32]

    def labels(self, rows: NDArray[np.int64] | slice) -> dict[str, Tensor]:
        """Of the chosen rows, as tensors."""
        return {name: torch.from_numpy(getattr(self, name)[rows]) for name in ("damage", "background", "strength")}


def crops_of(scene: Scene, size_px: int, count: int) -> DamagedCrops:
    """``count`` crops of a scene, a quarter of them untouched on average; random, seeded by the scene and the size."""
    rng = np.random.default_rng([scene.seed, size_px])
    image = render(scene, size_px, size_px)
    window, side = min(WINDOW_PX, size_px), CROP_PX + SPARE_PX
    pixels, kinds, strengths = [], [], []
    for _ in range(count):
        top, left = rng.integers(0, size_px - window + 1, 2)
        down, right = rng.integers(0, window - side + 1, 2)
        touched = rng.random() > UNTOUCHED_SHARE
        kind = int(rng.integers(1, len(DAMAGES))) if touched else 0
        strength = rng.uniform(SLIGHTEST, 1) if touched else 0.0
        damaged = damage(image[top : top + window, left : left + window], DAMAGES[kind], strength, rng)
        pixels.append(damaged[down : down + side, right : right + side])
        kinds.append(kind)
        strengths.append(strength)
    background = np.full(count, BACKGROUNDS.index(scene.background))
    return DamagedCrops(np.stack(pixels), np.array(kinds), background, np.array(strengths, dtype=np.float32))


def damaged_crops(sources: tuple[CropSource, ...], seed: int, cache: Path) -> DamagedCrops:
    """Crops of scenes with one object, rendered in parallel, or loaded from the cache.

    Args:
        sources: how many scenes and crops of which size; each size has other scenes.
        seed: of the scenes.
        cache: path of the cache; a hash of the sources, the seed and the kinds of damage is appended to its name.
    """
    key = hashlib.sha256(repr((sources, seed, DAMAGES)).encode()).hexdigest()[:8]
    cache = cache.with_name(f"{cache.stem}-{key}.npz")
    if not cache.exists():
        scenes = iter(sample_scenes(sum(source.scenes for source in sources), seed))
        parts: list[DamagedCrops] = []
        with renderers(sum(source.scenes * source.size_px**2 for source in sources)) as pool:
            for source in sources:
                chosen = [next(scenes) for _ in range(source.scenes)]
                make = partial(crops_of, size_px=source.size_px, count=source.crops)
                found = pool.map(make, chosen, chunksize=16)
                parts += tqdm(found, total=len(chosen), desc=f"crops of {source.size_px}x{source.size_px}")
        with open_atomically(cache) as stream:
            np.savez(
                stream,
                pixels=np.concatenate([part.pixels for part in parts]),
                damage=np.concatenate([part.damage for part in parts]),
                background=np.concatenate([part.background for part in parts]),
                strength=np.concatenate([part.strength for part in parts]),
            )
    with np.load(cache) as stored:
        return DamagedCrops(**stored)
