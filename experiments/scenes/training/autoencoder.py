"""Train the autoencoder on pixels in [-1, 1]: squared and absolute error, with a small KL term on the latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from experiments.scenes.model import BASE_PX, build_autoencoder
from experiments.scenes.renderer.scene import sample_scenes
from experiments.scenes.training.data import LARGE_SEED, TRAIN_SEED, VALIDATION_SEED, rendered
from experiments.scenes.training.loop import TrainingSchedule, run_training, step_generator

SCHEDULE = TrainingSchedule("autoencoder", steps=4500, batch=8, learning_rate=2e-3, ema=0.995)
KL_WEIGHT = 2e-5
# A quarter of each batch are crops of larger images, to prepare the decoder for sizes above the base size.
LARGE_PX, LARGE_SHARE = 192, 4


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Convert (N, H, W, 3) uint8 to (N, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def training_batch(base: NDArray[np.uint8], large: NDArray[np.uint8], step: int) -> Tensor:
    """Batch (B, 3, 64, 64) of a step: whole base-size images and crops of large ones, mirrored every other step."""
    generator = step_generator(SCHEDULE, step)
    count = SCHEDULE.batch // LARGE_SHARE
    whole = to_tensor(base[torch.randint(len(base), (SCHEDULE.batch - count,), generator=generator).numpy()])
    crops = []
    for _ in range(count):
        index = int(torch.randint(len(large), (), generator=generator))
        top, left = torch.randint(LARGE_PX - BASE_PX, (2,), generator=generator).tolist()
        crops.append(large[index, top : top + BASE_PX, left : left + BASE_PX])
    batch = torch.cat([whole, to_tensor(np.stack(crops))])
    return batch.flip(3) if step % 2 else batch


def autoencoder_loss(vae: AutoencoderKL, pixels: Tensor, generator: torch.Generator) -> Tensor:
    posterior = vae.encode(pixels).latent_dist
    restored = vae.decode(posterior.sample(generator=generator)).sample
    error = restored - pixels
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    return error.square().mean() + 0.1 * error.abs().mean() + KL_WEIGHT * kl


@torch.no_grad()
def psnr(vae: AutoencoderKL, images: NDArray[np.uint8], batch: int = 64) -> float:
    """Peak signal-to-noise ratio, in dB, of encoding and decoding ``images`` (N, H, W, 3) uint8, rounded to uint8."""
    total = 0.0
    for start in range(0, len(images), batch):
        pixels = to_tensor(images[start : start + batch])
        restored = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
        difference = (restored * 127.5).round() - (pixels * 127.5).round()
        total += difference.double().square().sum().item()
    return float(10 * np.log10(255**2 / (total / images.size)))


@torch.no_grad()
def encode(vae: AutoencoderKL, images: NDArray[np.uint8], batch: int = 128) -> Tensor:
    """Encode ``images`` to latent means (N, 8, h, w) float32, not multiplied by the scaling factor."""
    chunks = (images[i : i + batch] for i in range(0, len(images), batch))
    return torch.cat([vae.encode(to_tensor(chunk)).latent_dist.mode() for chunk in chunks])


def train_autoencoder(folder: Path, log: Path, train_count: int) -> AutoencoderKL:
    """Train, then set the scaling factor to give the latents unit standard deviation."""
    torch.manual_seed(0)
    vae = build_autoencoder().to(memory_format=torch.channels_last)
    base = rendered(sample_scenes(train_count, TRAIN_SEED), BASE_PX, folder / "train.npy")
    large = rendered(sample_scenes(1024, LARGE_SEED), LARGE_PX, folder / "large.npy")

    def loss_at(step: int) -> Tensor:
        return autoencoder_loss(vae, training_batch(base, large, step), step_generator(SCHEDULE, step + 10**6))

    run_training(SCHEDULE, vae, loss_at, folder, log)
    vae.register_to_config(scaling_factor=round(float(1 / encode(vae, base[:2048]).std()), 5))
    return vae


def measure_autoencoder(vae: AutoencoderKL, folder: Path) -> dict[str, float]:
    """PSNR on held-out scenes."""
    held_out = rendered(sample_scenes(512, VALIDATION_SEED), BASE_PX, folder / "validation.npy")
    return {"autoencoder_psnr_db": round(psnr(vae, held_out), 2)}
