"""The counter: a density of objects, whose sum over an image is their number (Lempitsky and Zisserman, 2010).

It sees images resized to a short side of 256: an object that fills the frame has 200 pixels there, one of 36 about 30,
and a U-shaped network sees both. It is trained on scenes with 1 to 36 objects, with damage, at several resolutions,
in crowds and side by side, with pasted fragments of objects, which do not count; and on the model's own samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.scenes.networks import batches, convolution
from experiments.scenes.renderer.scene import sample_scenes
from experiments.scenes.training.autoencoder import to_tensor
from experiments.scenes.training.clutter import degraded, with_fragments
from experiments.scenes.training.data import (
    COUNTING_SEED,
    MOST_COPIES,
    SAMPLED_SEED,
    VALIDATION_SEED,
    Spot,
    counting_scenes,
    rendered,
    spots,
)
from experiments.scenes.training.loop import TrainingSchedule, run_training, step_generator
from experiments.scenes.training.sampled import mosaics

SCHEDULE = TrainingSchedule("repetition", steps=1600, batch=16, learning_rate=1.5e-3, ema=0.99)
SIDE = 256  # short side of what the network sees
SHAPES = {(256, 256): 3600, (256, 384): 450, (384, 256): 450}  # (height, width) -> scenes
MOSAICS = 0.35  # mosaics of samples for each scene
STRIDE = 8  # of the density
WIDTHS = (16, 32, 64, 64, 96, 96)  # at strides 2, 4, 8, 16, 32 and 64
MERGED = 64
SPREAD = 0.1  # standard deviation of an object's density as a share of its size, ...
NARROWEST, WIDEST = 1.0, 2.0  # ... within these limits, in cells
DENSITY_UNIT = 1 / 16
DENSITY_WEIGHT = 10.0


class CounterNetwork(nn.Module):
    """Maps (N, 3, H, W) float32 in [-1, 1] to the density of objects (N, ceil(H/8), ceil(W/8)), objects per cell."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *convolution(3, WIDTHS[0], stride=2, kernel=5),
            *convolution(WIDTHS[0], WIDTHS[1], stride=2),
            *convolution(WIDTHS[1], WIDTHS[1]),
        )
        pairs = zip(WIDTHS[1:-1], WIDTHS[2:], strict=True)
        self.down = nn.ModuleList(nn.Sequential(*convolution(a, b, stride=2), *convolution(b, b)) for a, b in pairs)
        self.lateral = nn.ModuleList(nn.Conv2d(width, MERGED, 1) for width in WIDTHS[2:])
        self.merge = nn.ModuleList(nn.Sequential(*convolution(MERGED, MERGED)) for _ in WIDTHS[3:])
        self.density = nn.Conv2d(MERGED, 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        maps, levels = self.stem(pixels), []
        for down in self.down:
            maps = down(maps)
            levels.append(maps)
        *finer, coarsest = (lateral(level) for lateral, level in zip(self.lateral, levels, strict=True))
        for skip, merge in zip(reversed(finer), self.merge, strict=True):
            coarsest = merge(skip + F.interpolate(coarsest, skip.shape[2:], mode="bilinear", align_corners=False))
        found: Tensor = self.density(coarsest)
        return found.squeeze(1) * DENSITY_UNIT


def prepare(images: NDArray[np.uint8]) -> Tensor:
    """Resize (N, H, W, 3) uint8 to a short side of 256, antialiased, as (N, 3, h, w) float32 in [-1, 1]."""
    pixels = to_tensor(images)
    height, width = pixels.shape[2:]
    size = round(height * SIDE / min(height, width)), round(width * SIDE / min(height, width))
    if size == (height, width):
        return pixels
    return F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(-1, 1)


def density_target(objects: Sequence[Spot], height: int, width: int) -> Tensor:
    """The density that the network should find: a Gaussian for each object that sums to one within the image.

    Args:
        objects: (centre x, centre y, size) of each, in units of the short side from the centre of the frame.
        height: of the image in pixels.
        width: of the image in pixels.

    Returns:
        (ceil(height/8), ceil(width/8)) float32.
    """
    short = min(height, width)
    centres = np.array(objects, dtype=np.float64).reshape(-1, 3)
    spread = np.clip(SPREAD * centres[:, 2] * short / STRIDE, NARROWEST, WIDEST)[:, None]
    axes = []
    for centre, length in ((centres[:, 1], height), (centres[:, 0], width)):
        cells = -(-length // STRIDE)
        position = np.clip((length / 2 + centre * short) / STRIDE - 0.5, 0, cells - 1)[:, None]
        weights = np.exp(-0.5 * ((np.arange(cells) - position) / spread) ** 2)
        axes.append(weights / weights.sum(1, keepdims=True))
    return torch.from_numpy(axes[0].T @ axes[1]).float()


def density_loss(found: Tensor, target: Tensor) -> Tensor:
    """Squared error of the density (N, h, w), and error of its sum; both relative to the root of the number."""
    number = target.sum((1, 2))
    squared = (found - target).square().sum((1, 2))
    count_error = F.smooth_l1_loss(found.sum((1, 2)), number, reduction="none", beta=0.2)
    return ((DENSITY_WEIGHT * squared + count_error) / number.sqrt()).mean()


class CountingSet:
    """Images (N, H, W, 3) uint8 of one shape, with the places of their objects and the densities that these make."""

    def __init__(self, images: NDArray[np.uint8], places: Sequence[Sequence[Spot]]) -> None:
        self.images, self.places = images, places
        self.targets = torch.stack([density_target(each, *images.shape[1:3]) for each in places])

    @classmethod
    def of_scenes(cls, count: int, shape: tuple[int, int], seed: int, folder: Path) -> CountingSet:
        """Rendered scenes with copies."""
        scenes = counting_scenes(count, seed)
        images = rendered(scenes, shape, folder / f"counting{shape[0]}x{shape[1]}.npy")
        return cls(images, [spots(scene) for scene in scenes])

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random images with fragments and damage: pixels (size, 3, H, W) and densities (size, H/8, W/8)."""
        index = torch.randint(len(self.images), (size,), generator=generator)
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        images = with_fragments(self.images[index.numpy()], [self.places[i] for i in index.tolist()], rng)
        pixels, targets = degraded(images, rng), self.targets[index]
        mirrored = bool(rng.random() < 0.5)
        return (pixels.flip(3), targets.flip(2)) if mirrored else (pixels, targets)


def train_counter(
    folder: Path,
    log: Path,
    samples: tuple[NDArray[np.uint8], Sequence[Spot]],
    shapes: dict[tuple[int, int], int] = SHAPES,
    schedule: TrainingSchedule = SCHEDULE,
) -> CounterNetwork:
    """Train on scenes with 1 to 36 objects, and on samples with one, alone and side by side.

    Args:
        folder: checkpoints and rendered scenes.
        log: gets the losses.
        samples: (N, 128, 128, 3) uint8 samples of one object, and the places of these.
        shapes: how many scenes there are of each (height, width).
        schedule: each step has images of one shape, chosen as often as there are any.
    """
    torch.manual_seed(3)
    network = CounterNetwork().to(memory_format=torch.channels_last)
    sets = [
        CountingSet.of_scenes(count, shape, COUNTING_SEED + i, folder)
        for i, (shape, count) in enumerate(shapes.items())
    ]
    sets.append(CountingSet(*mosaics(*samples, round(MOSAICS * sum(shapes.values())), SIDE, SAMPLED_SEED)))
    shares = torch.tensor([len(each.images) for each in sets], dtype=torch.float32)

    def loss_at(step: int) -> Tensor:
        generator = step_generator(schedule, step)
        chosen = sets[int(torch.multinomial(shares, 1, generator=generator))]
        pixels, targets = chosen.batch(schedule.batch, generator)
        return density_loss(network(pixels), targets)

    run_training(schedule, network, loss_at, folder, log)
    return network


@torch.no_grad()
def count_objects(network: CounterNetwork, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N,) sums of the density of (N, H, W, 3) uint8 images of any one size; not rounded, and never negative."""
    sums = [network(prepare(part)).sum((1, 2)) for part in batches(images)]
    found: NDArray[np.float32] = torch.cat(sums).clamp(min=0).numpy()
    return found


def measure_counter(network: CounterNetwork, folder: Path, repeats: int = 4) -> dict[str, float]:
    """Mean absolute error for single objects at 128 and 512 pixels, and mean relative error for 1 to 36 at 256, side
    by side and crowded, on held-out scenes: ``repeats`` of each number, eight times as many single objects.
    """
    scores = {}
    for side in (128, 512):
        scenes = sample_scenes(8 * repeats, VALIDATION_SEED + side)
        images = rendered(scenes, side, folder / f"counting_validation{side}.npy")
        scores[f"counter_error_single_{side}"] = float(np.abs(count_objects(network, images) - 1).mean())
    numbers = np.tile(np.arange(1, MOST_COPIES + 1), repeats)
    scenes = sample_scenes(len(numbers), VALIDATION_SEED + 2)
    for name, crowded in (("", False), ("_crowded", True)):
        several = [
            replace(scene, copies=int(number), crowded=crowded and number > 1)
            for scene, number in zip(scenes, numbers, strict=True)
        ]
        found = count_objects(network, rendered(several, SIDE, folder / f"counting_validation{name}.npy"))
        scores[f"counter_relative_error{name}"] = float((np.abs(found - numbers) / numbers).mean())
    return {name: round(value, 4) for name, value in scores.items()}
