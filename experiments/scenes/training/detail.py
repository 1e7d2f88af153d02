"""The detail network: how a crop is damaged and how much, and which background it was cut from.

Its 64-d penultimate layer is the feature space in which crops are compared. It sees pixels at their own size: the
first block keeps the resolution and is not normalised, because the amplitude of fine structure is what tells damage
from none, and every level is summarised by mean, maximum and standard deviation over positions.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.scenes.networks import convolution, root_mean_square
from experiments.scenes.renderer.scene import BACKGROUNDS
from experiments.scenes.training.autoencoder import to_tensor
from experiments.scenes.training.damaged import CROP_PX, DAMAGES, SPARE_PX, CropSource, DamagedCrops, damaged_crops
from experiments.scenes.training.data import DETAIL_SEED
from experiments.scenes.training.loop import TrainingSchedule, run_training, step_generator

# At 2e-3 the network stays at chance.
SCHEDULE = TrainingSchedule("detail", steps=2000, batch=64, learning_rate=6e-4, ema=0.99)
SOURCES = (CropSource(128, 2000, 4), CropSource(256, 800, 10), CropSource(512, 400, 20))
HELD_OUT = (CropSource(128, 192, 2), CropSource(256, 96, 4), CropSource(512, 48, 8))
FEATURES = 64
WIDTHS = (16, 32, 64, 96)  # at strides 1, 2, 4 and 8
RESIDUAL_GAIN = 4.0
STRENGTH_WEIGHT = 4.0


def statistics(maps: Tensor) -> Tensor:
    """Mean, maximum and standard deviation of (N, C, H, W) over positions: (N, 3 C)."""
    mean = maps.mean((2, 3))
    variance = (maps - mean[:, :, None, None]).square().mean((2, 3))
    largest = maps.contiguous().amax((2, 3))  # of channels_last it takes thirty times as long
    return torch.cat([mean, largest, torch.sqrt(variance + 1e-4)], dim=1)


class DetailNetwork(nn.Module):
    """Maps crops (N, 3, H, W) float32 in [-1, 1] of any size to features (N, 64); trained with 64x64.

    `heads` map features to the logits of the damage (``DAMAGES``) and of the background, and to the strength.
    ``scale`` is the root mean square of the features of held-out crops.
    """

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        full, half, quarter, eighth = WIDTHS
        self.levels = nn.ModuleList(
            [
                nn.Sequential(*convolution(6, full, norm=False), *convolution(full, full, norm=False)),
                nn.Sequential(*convolution(full, half, stride=2), *convolution(half, half)),
                nn.Sequential(*convolution(half, quarter, stride=2), *convolution(quarter, quarter)),
                nn.Sequential(*convolution(quarter, eighth, stride=2)),
            ]
        )
        self.penultimate = nn.Linear(3 * sum(WIDTHS), FEATURES)
        sizes = {"damage": len(DAMAGES), "background": len(BACKGROUNDS), "strength": 1}
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, size) for name, size in sizes.items()})
        self.register_buffer("scale", torch.ones(()))

    def forward(self, pixels: Tensor) -> Tensor:
        # The amplified residual of a small blur, as in image forensics: fine structure is faint beside the scene.
        local_mean = F.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
        maps, found = torch.cat([pixels, RESIDUAL_GAIN * (pixels - local_mean)], dim=1), []
        for level in self.levels:
            maps = level(maps)
            found.append(statistics(maps))
        return F.silu(self.penultimate(torch.cat(found, dim=1)))

    def describe(self, pixels: Tensor) -> dict[str, Tensor]:
        """Logits of damage and background (N, classes), and the strength (N,): 0 untouched, 1 as step 4."""
        features = self(pixels)
        found = {name: head(features) for name, head in self.heads.items()}
        return found | {"strength": found["strength"].squeeze(1)}


def detail_loss(network: DetailNetwork, pixels: Tensor, truth: dict[str, Tensor]) -> Tensor:
    found = network.describe(pixels)
    strength_error = F.smooth_l1_loss(found["strength"], truth["strength"], beta=0.1)
    classes = sum(F.cross_entropy(found[name], truth[name]) for name in ("damage", "background"))
    return classes + STRENGTH_WEIGHT * strength_error


def training_batch(crops: DamagedCrops, schedule: TrainingSchedule, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """(B, 3, 64, 64) and labels of a step: random windows of the stored crops, mirrored every other step."""
    generator = step_generator(schedule, step)
    index = torch.randint(len(crops.pixels), (schedule.batch,), generator=generator).numpy()
    top, left = torch.randint(SPARE_PX + 1, (2,), generator=generator).tolist()
    pixels = to_tensor(crops.pixels[index, top : top + CROP_PX, left : left + CROP_PX])
    return pixels.flip(3) if step % 2 else pixels, crops.labels(index)


def train_detail(
    folder: Path, log: Path, sources: tuple[CropSource, ...] = SOURCES, schedule: TrainingSchedule = SCHEDULE
) -> DetailNetwork:
    """Train on damaged crops of scenes rendered at several sizes."""
    torch.manual_seed(2)
    network = DetailNetwork().to(memory_format=torch.channels_last)
    crops = damaged_crops(sources, DETAIL_SEED, folder / "detail.npz")
    run_training(
        schedule, network, lambda step: detail_loss(network, *training_batch(crops, schedule, step)), folder, log
    )
    return network


@torch.no_grad()
def measure_detail(
    network: DetailNetwork, folder: Path, sources: tuple[CropSource, ...] = HELD_OUT
) -> dict[str, float]:
    """On held-out crops: share with the right damage and background, the mean absolute error of the strength. Sets
    ``network.scale`` from the same crops.
    """
    crops = damaged_crops(sources, DETAIL_SEED + 1, folder / "detail_validation.npz")
    pixels = to_tensor(crops.pixels[:, :CROP_PX, :CROP_PX])
    network.scale.copy_(root_mean_square(torch.cat([network(part) for part in pixels.split(256)])))
    parts = [network.describe(part) for part in pixels.split(256)]
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    truth = crops.labels(slice(None))
    scores = {
        f"detail_{name}_accuracy": (found[name].argmax(1) == truth[name]).double().mean().item()
        for name in ("damage", "background")
    }
    scores["detail_strength_error"] = (found["strength"] - truth["strength"]).abs().double().mean().item()
    return {name: round(value, 4) for name, value in scores.items()}
