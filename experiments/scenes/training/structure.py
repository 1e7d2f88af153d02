"""The structure network: which object in which colour before which background, and where it stands.

Its 64-d penultimate layer is the feature space in which whole images are compared. It sees images at 128x128 and is
trained on scenes with one object only: it is never told what a repeated object looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.scenes.model import BASE_PX
from experiments.scenes.networks import batches, convolution, root_mean_square
from experiments.scenes.renderer.scene import BACKGROUNDS, COLOURS, OBJECTS, Scene, sample_scenes
from experiments.scenes.training.autoencoder import to_tensor
from experiments.scenes.training.data import TRAIN_SEED, VALIDATION_SEED, rendered, spots
from experiments.scenes.training.loop import TrainingSchedule, run_training, step_generator

SCHEDULE = TrainingSchedule("structure", steps=700, batch=64, learning_rate=2e-3, ema=0.99)
FACTORS = {"object": OBJECTS, "colour": COLOURS, "background": BACKGROUNDS}
POSE = ("centre_x", "centre_y", "size")
POSE_UNIT = 0.1  # of the short side
FEATURES = 64
NOISE = 0.08  # largest standard deviation of the noise added in training
CELLS = BASE_PX // 32  # positions per side that the features distinguish


class StructureNetwork(nn.Module):
    """Maps (N, 3, 128, 128) float32 in [-1, 1] to features (N, 64); `heads` map features to the logits of each factor
    and to the pose.

    ``trunk`` is convolutional and takes any size. ``scale`` is the root mean square of the features of held-out
    scenes.
    """

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *convolution(3, 24, stride=2, kernel=5),
            *convolution(24, 48, stride=2),
            *convolution(48, 48),
            *convolution(48, 72, stride=2),
            *convolution(72, 72),
            *convolution(72, 96, stride=2),
            *convolution(96, 96),
            *convolution(96, 96, stride=2),
        )
        self.penultimate = nn.Linear(96 * CELLS**2 + 96, FEATURES)
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, len(values)) for name, values in FACTORS.items()})
        self.heads["pose"] = nn.Linear(FEATURES, len(POSE))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.trunk(pixels)
        return F.silu(self.penultimate(torch.cat([maps.flatten(1), maps.amax((2, 3))], dim=1)))

    def describe(self, pixels: Tensor) -> dict[str, Tensor]:
        """Outputs of all heads: logits (N, classes) of each factor, and the pose (N, 3) in units of the short side."""
        features = self(pixels)
        found = {name: head(features) for name, head in self.heads.items()}
        return found | {"pose": found["pose"] * POSE_UNIT}


def labels(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """Class index (N,) of each factor, and the pose (N, 3) of the object; scenes have one object."""
    found = {name: torch.tensor([values.index(getattr(s, name)) for s in scenes]) for name, values in FACTORS.items()}
    return found | {"pose": torch.tensor([spots(s)[0] for s in scenes], dtype=torch.float32)}


def structure_loss(
    network: StructureNetwork, pixels: Tensor, truth: dict[str, Tensor], generator: torch.Generator
) -> Tensor:
    amount = NOISE * torch.rand(len(pixels), 1, 1, 1, generator=generator)
    found = network.describe(pixels + amount * torch.randn(pixels.shape, generator=generator))
    pose_error = F.smooth_l1_loss(found.pop("pose") / POSE_UNIT, truth["pose"] / POSE_UNIT)
    return pose_error + sum(F.cross_entropy(value, truth[name]) for name, value in found.items())


def train_structure(
    folder: Path, log: Path, train_count: int, schedule: TrainingSchedule = SCHEDULE
) -> StructureNetwork:
    """Train on the scenes that the diffusion model is trained on."""
    torch.manual_seed(1)
    network = StructureNetwork().to(memory_format=torch.channels_last)
    scenes = sample_scenes(train_count, TRAIN_SEED)
    images, truth = rendered(scenes, BASE_PX, folder / "train.npy"), labels(scenes)

    def loss_at(step: int) -> Tensor:
        generator = step_generator(schedule, step)
        index = torch.randint(len(images), (schedule.batch,), generator=generator)
        chosen = {name: value[index] for name, value in truth.items()}
        return structure_loss(network, to_tensor(images[index.numpy()]), chosen, generator)

    run_training(schedule, network, loss_at, folder, log)
    return network


@torch.no_grad()
def described(network: StructureNetwork, images: NDArray[np.uint8]) -> dict[str, Tensor]:
    """`StructureNetwork.describe` of (N, 128, 128, 3) uint8 images, which fit into memory in parts."""
    parts = [network.describe(to_tensor(part)) for part in batches(images)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def structure_quality(
    network: StructureNetwork, images: NDArray[np.uint8], scenes: Sequence[Scene]
) -> dict[str, float]:
    """Share of (N, 128, 128, 3) uint8 images in which each factor is recognised, and the mean absolute error of the
    pose in units of the short side.
    """
    found, truth = described(network, images), labels(scenes)
    scores = {
        f"structure_{name}_accuracy": (found[name].argmax(1) == truth[name]).double().mean().item() for name in FACTORS
    }
    scores["structure_pose_error"] = (found["pose"] - truth["pose"]).abs().double().mean().item()
    return {name: round(value, 4) for name, value in scores.items()}


@torch.no_grad()
def measure_structure(network: StructureNetwork, folder: Path, count: int = 1024) -> dict[str, float]:
    """`structure_quality` on held-out scenes. Sets ``network.scale`` from the same images."""
    scenes = sample_scenes(count, VALIDATION_SEED + 1)
    images = rendered(scenes, BASE_PX, folder / "structure_validation.npy")
    features = torch.cat([network(to_tensor(part)) for part in batches(images)])
    network.scale.copy_(root_mean_square(features))
    return structure_quality(network, images, scenes)
