"""Samples of the trained model at its training size, which show one object each, as samplers draw it.

The counter is trained on them too, alone and side by side, so that it knows an object with worn edges for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from eval.files import open_atomically
from experiments.scenes.model import BASE_PX
from experiments.scenes.renderer.scene import Scene, sample_scenes
from experiments.scenes.training.data import SAMPLED_SEED, Spot
from experiments.scenes.training.structure import FACTORS, StructureNetwork, described, labels

STEPS, GUIDANCE_SCALE, BATCH = 25, 5.0, 32
SIDES = (1, 2, 3, 4)  # samples along a side of a mosaic, ...
SHARES = (0.5, 0.25, 0.15, 0.1)  # ... and the share of the mosaics that have so many


def sample_base(pipe: StableDiffusionPipeline, n: int, seed: int) -> tuple[list[Scene], NDArray[np.uint8]]:
    """Generate ``n`` base-size images (N, 128, 128, 3) uint8 for balanced captions, with one generator per image."""
    scenes = sample_scenes(n, seed)
    pipe.set_progress_bar_config(disable=True)
    batches = []
    for start in range(0, n, BATCH):
        part = scenes[start : start + BATCH]
        generators = [torch.Generator().manual_seed(s.seed) for s in part]
        options = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE_SCALE, "output_type": "np"}
        images = pipe([s.caption for s in part], generator=generators, height=BASE_PX, width=BASE_PX, **options).images
        batches.append((images * 255).round().astype(np.uint8))
    return scenes, np.concatenate(batches)


def sampled_objects(
    pipe: StableDiffusionPipeline, structure: StructureNetwork, count: int, cache: Path
) -> tuple[NDArray[np.uint8], list[Spot]]:
    """Samples in which the structure network sees what the caption asked for, and where it sees it.

    Args:
        pipe: the scenes pipeline.
        structure: the trained structure network.
        count: how many are sampled; those that show something else are left out.
        cache: file of the samples.

    Returns:
        (N, 128, 128, 3) uint8, and N spots.
    """
    if not cache.exists():
        with open_atomically(cache) as stream:
            np.save(stream, sample_base(pipe, count, SAMPLED_SEED)[1])
    images = np.load(cache)
    found, wanted = described(structure, images), labels(sample_scenes(count, SAMPLED_SEED))
    right = torch.stack([found[name].argmax(1) == wanted[name] for name in FACTORS]).all(0)
    return images[right.numpy()], [(x, y, size) for x, y, size in found["pose"][right].tolist()]


def mosaics(
    images: NDArray[np.uint8], places: Sequence[Spot], count: int, side: int, seed: int
) -> tuple[NDArray[np.uint8], list[list[Spot]]]:
    """Half of them one sample, enlarged; the others 2x2 to 4x4 samples.

    Args:
        images: (N, S, S, 3) uint8 samples.
        places: of their objects.
        count: number of mosaics.
        side: of a mosaic in pixels.
        seed: of the choice.

    Returns:
        (count, side, side, 3) uint8, and the places of all objects of each.
    """
    rng = np.random.default_rng(seed)
    made, where = np.empty((count, side, side, 3), np.uint8), []
    for mosaic in made:
        k = int(rng.choice(SIDES, p=SHARES))
        edges = np.round(np.linspace(0, side, k + 1)).astype(int)
        spots = []
        for row in range(k):
            for column in range(k):
                chosen = int(rng.integers(len(images)))
                (top, bottom), (left, right) = edges[row : row + 2], edges[column : column + 2]
                tile = Image.fromarray(images[chosen]).resize((right - left, bottom - top), Image.Resampling.LANCZOS)
                mosaic[top:bottom, left:right] = np.asarray(tile)
                x, y, size = places[chosen]
                spots.append(((x + column + 0.5) / k - 0.5, (y + row + 0.5) / k - 0.5, size / k))
        where.append(spots)
    return made, where
