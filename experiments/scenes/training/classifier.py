"""The scenes classifier: predicts object, colour and background of an image, and estimates the number of copies.

Its 64-d penultimate layer is the feature space of FID and KID in the embedded world. Images are downsampled to 64x64,
as Inception does to 299x299, so it sees the content of an image and not its finest detail. Training with one to
sixteen copies makes its features sensitive to repetition.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.scenes.model import BASE_PX
from experiments.scenes.renderer.scene import BACKGROUNDS, COLOURS, OBJECTS, Scene, sample_scenes
from experiments.scenes.training.autoencoder import to_tensor
from experiments.scenes.training.data import COUNTING_SEED, TRAIN_SEED, VALIDATION_SEED, counting_scenes, rendered
from experiments.scenes.training.loop import TrainingSchedule, run_training, step_generator

SCHEDULE = TrainingSchedule("classifier", steps=700, batch=64, learning_rate=2e-3, ema=0.99)
FACTORS = {"object": OBJECTS, "colour": COLOURS, "background": BACKGROUNDS}
FEATURES = 64


class SceneClassifier(nn.Module):
    """Maps (N, 3, 64, 64) float32 in [-1, 1] to features (N, 64); `heads` map features to the logits of each factor
    and to log2(copies).

    ``scale`` is the root mean square of the features of held-out scenes. Features divided by it give FID and KID of
    the usual order of magnitude.
    """

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 96)
        blocks: list[nn.Module] = []
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            blocks += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
            blocks += [nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.trunk = nn.Sequential(*blocks)
        self.penultimate = nn.Linear(2 * widths[-1], FEATURES)
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, len(values)) for name, values in FACTORS.items()})
        self.heads["copies"] = nn.Linear(FEATURES, 1)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.trunk(pixels)
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)
        return F.silu(self.penultimate(pooled))

    def classify(self, pixels: Tensor) -> dict[str, Tensor]:
        """Outputs of all heads: logits (N, classes) of each factor, and log2(copies) (N, 1)."""
        features = self(pixels)
        return {name: head(features) for name, head in self.heads.items()}


def labels(scenes: list[Scene]) -> dict[str, Tensor]:
    """Class index of each factor, and log2 of the number of copies as float32; each (N,)."""
    found = {name: torch.tensor([values.index(getattr(s, name)) for s in scenes]) for name, values in FACTORS.items()}
    return found | {"copies": torch.tensor([s.copies for s in scenes]).float().log2()}


def classifier_loss(
    model: SceneClassifier, pixels: Tensor, truth: dict[str, Tensor], generator: torch.Generator
) -> Tensor:
    noise = (
        0.08 * torch.rand(len(pixels), 1, 1, 1, generator=generator) * torch.randn(pixels.shape, generator=generator)
    )
    logits = model.classify(pixels + noise)
    count_error = F.smooth_l1_loss(logits.pop("copies").squeeze(1), truth["copies"])
    return count_error + sum(F.cross_entropy(value, truth[name]) for name, value in logits.items())


@torch.no_grad()
def accuracy(model: SceneClassifier, images: NDArray[np.uint8], truth: dict[str, Tensor]) -> dict[str, float]:
    """Fraction of correctly classified images, for each factor."""
    logits = model.classify(to_tensor(images))
    return {name: (logits[name].argmax(1) == truth[name]).double().mean().item() for name in FACTORS}


def train_classifier(folder: Path, log: Path, train_count: int) -> SceneClassifier:
    """Train on single objects and on scenes with one to sixteen copies."""
    torch.manual_seed(1)
    model = SceneClassifier().to(memory_format=torch.channels_last)
    single, several = sample_scenes(train_count, TRAIN_SEED), counting_scenes(8192, COUNTING_SEED)
    sources = [
        (rendered(single, BASE_PX, folder / "train.npy"), labels(single), SCHEDULE.batch * 5 // 8),
        (rendered(several, BASE_PX, folder / "counting.npy"), labels(several), SCHEDULE.batch * 3 // 8),
    ]

    def loss_at(step: int) -> Tensor:
        generator = step_generator(SCHEDULE, step)
        pixels, truths = [], []
        for images, truth, count in sources:
            index = torch.randint(len(images), (count,), generator=generator)
            pixels.append(to_tensor(images[index.numpy()]))
            truths.append({name: value[index] for name, value in truth.items()})
        merged = {name: torch.cat([t[name] for t in truths]) for name in truths[0]}
        return classifier_loss(model, torch.cat(pixels), merged, generator)

    run_training(SCHEDULE, model, loss_at, folder, log)
    return model


def measure_classifier(model: SceneClassifier, folder: Path) -> dict[str, float]:
    """Held-out accuracy of each factor. Sets ``model.scale`` from the same images."""
    held_out = sample_scenes(1024, VALIDATION_SEED + 1)
    images = rendered(held_out, BASE_PX, folder / "classifier_validation.npy")
    scores = accuracy(model, images, labels(held_out))
    with torch.no_grad():
        model.scale.copy_(model(to_tensor(images)).square().mean().sqrt())
    return {f"classifier_{name}_accuracy": round(value, 4) for name, value in scores.items()}
