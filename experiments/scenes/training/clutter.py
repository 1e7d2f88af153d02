"""What the counter has to see through: fragments of objects that are none, bent shapes, coarse pixels, and damage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from experiments.scenes.training.autoencoder import to_tensor
from experiments.scenes.training.damaged import damage
from experiments.scenes.training.data import Spot

CLUTTERED, MOST_FRAGMENTS = 0.35, 4  # share of the images with fragments, and how many these have at most
FRAGMENT = (0.15, 0.4)  # side of a fragment as a share of its object
DAMAGED = 0.4  # share of the images that are damaged
DAMAGES = ("enlarged", "noise", "speckle", "dilation grid", "JPEG", "ringing")
STRONGEST = 0.75  # the third of four steps
BENT = 0.5  # share of the batches whose shapes are bent
LARGEST_BEND = 0.02  # standard deviation of the displacements, as a share of the sides
BEND_CELLS = (6, 24)  # displacements are independent in so many cells a side, and smooth between them
COARSE = 0.4  # share of the batches that were smaller images
COARSEST = 0.5  # side of those as a share


def with_fragments(
    images: NDArray[np.uint8], places: Sequence[Sequence[Spot]], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Paste parts of objects of other images of the batch into some of the images.

    Args:
        images: (N, H, W, 3) uint8.
        places: (centre x, centre y, size) of the objects of each image.
        rng: chooses images, parts and places.

    Returns:
        A copy. No fragment covers the middle of an object.
    """
    images = np.array(images)
    sources = images.copy()
    for image, own in zip(images, places, strict=True):
        if rng.random() < CLUTTERED:
            for _ in range(int(rng.integers(1, MOST_FRAGMENTS + 1))):
                donor = int(rng.integers(len(sources)))
                paste(image, own, sources[donor], places[donor][int(rng.integers(len(places[donor])))], rng)
    return images


def paste(
    image: NDArray[np.uint8],
    own: Sequence[Spot],
    source: NDArray[np.uint8],
    part_of: Spot,
    rng: np.random.Generator,
) -> None:
    """Paste an elliptical part of an object of ``source`` into ``image`` in place, unless it would hide an object."""
    height, width = image.shape[:2]
    short = min(height, width)
    centre_x, centre_y, size = part_of
    side = min(short // 2, max(3, round(rng.uniform(*FRAGMENT) * size * short)))
    corner = (np.array([centre_y, centre_x]) + rng.uniform(-0.35, 0.35, 2) * size) * short
    corner = corner + np.array([height, width]) / 2 - side / 2
    top, left = np.clip(corner, 0, (height - side, width - side)).astype(int)
    down, right = rng.integers(0, (height - side + 1, width - side + 1))
    middle = (np.array([right, down]) + side / 2 - np.array([width, height]) / 2) / short
    for x, y, other in own:
        if np.hypot(middle[0] - x, middle[1] - y) < side / short / 2 + 0.35 * other:
            return
    y_grid, x_grid = np.mgrid[:side, :side] * 2 / (side - 1) - 1
    inside = np.hypot(x_grid, y_grid * rng.uniform(1, 1.8)) < 1
    image[down : down + side, right : right + side][inside] = source[top : top + side, left : left + side][inside]


def bent(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """(N, C, H, W) pixels seen through uneven glass, as the shapes of a sampler are: each image displaced smoothly, by
    up to a few hundredths of its sides.
    """
    count, _, height, width = pixels.shape
    cells = int(torch.randint(*BEND_CELLS, (), generator=generator))
    amount = LARGEST_BEND * BEND_CELLS[0] / cells  # the same slopes at any scale
    largest = amount * torch.rand(count, 1, 1, 1, generator=generator)
    coarse = torch.randn(count, 2, cells, cells, generator=generator) * 2 * largest  # the frame is 2 wide
    shift = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    still = torch.eye(2, 3).expand(count, 2, 3)
    grid = F.affine_grid(still, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid + shift, padding_mode="reflection", align_corners=False)


def degraded(images: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """(N, 3, H, W) float32 in [-1, 1]: some images damaged as in `eval.corruptions`, some batches bent or as if they
    had been smaller images, all with a little noise and another brightness and contrast.
    """
    images = np.array(images)
    for i in np.flatnonzero(rng.random(len(images)) < DAMAGED):
        images[i] = damage(images[i], str(rng.choice(DAMAGES)), rng.uniform(0.15, STRONGEST), rng)
    pixels = to_tensor(images)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    if rng.random() < BENT:
        pixels = bent(pixels, generator)
    height, width = pixels.shape[2:]
    if rng.random() < COARSE:
        scale = rng.uniform(COARSEST, 1)
        smaller = F.interpolate(pixels, (round(scale * height), round(scale * width)), mode="bilinear", antialias=True)
        pixels = F.interpolate(smaller, (height, width), mode="bicubic")
    count = len(pixels)
    gain = torch.from_numpy(rng.uniform(0.8, 1.1, (count, 1, 1, 1))).float()
    shift = torch.from_numpy(rng.uniform(-0.1, 0.1, (count, 3, 1, 1))).float()
    noise = 0.05 * torch.rand(count, 1, 1, 1, generator=generator) * torch.randn(pixels.shape, generator=generator)
    return pixels * gain + shift + noise
