"""Train the autoencoder on pixels in [-1, 1]: squared and absolute error, with a small KL term on the latents; then
the decoder alone, on squared error and on latents that are off by as much as generated ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.scenes.model import BASE_PX, build_autoencoder
from experiments.scenes.renderer.scene import render, sample_scenes
from experiments.scenes.training.data import VALIDATION_SEED, rendered
from experiments.scenes.training.loop import TrainingSchedule, run_training, step_generator

# The last four channels join when the first eight have settled: they hold what those cannot.
NARROW = TrainingSchedule("autoencoder-8-channels", steps=2000, batch=16, learning_rate=2e-3, ema=0.995)
SCHEDULE = TrainingSchedule("autoencoder", steps=1500, batch=16, learning_rate=1.5e-3, ema=0.995)
DECODER = (
    TrainingSchedule("decoder", steps=1200, batch=16, learning_rate=1.5e-3, ema=0.995),
    TrainingSchedule("decoder-longer", steps=1500, batch=16, learning_rate=1.5e-3, ema=0.995),
    TrainingSchedule("decoder-last", steps=1000, batch=16, learning_rate=1e-3, ema=0.995),
)
NARROW_CHANNELS = 8
LATENT_NOISE = 0.2  # the most that the decoder is trained to ignore, in standard deviations of the latents
KL_WEIGHT = 1e-5
CROP_PX = 64
LARGE_SIZES = 256, 512


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Convert (N, H, W, 3) uint8 to (N, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def training_batch(sets: Sequence[NDArray[np.uint8]], schedule: TrainingSchedule, step: int) -> Tensor:
    """Batch (B, 3, 64, 64) of a step: crops of images of every set, mirrored every other step."""
    generator = step_generator(schedule, step)
    crops = []
    for index in range(schedule.batch):
        images = sets[index % len(sets)]
        chosen = int(torch.randint(len(images), (), generator=generator))
        top, left = torch.randint(images.shape[1] - CROP_PX + 1, (2,), generator=generator).tolist()
        crops.append(images[chosen, top : top + CROP_PX, left : left + CROP_PX])
    batch = to_tensor(np.stack(crops))
    return batch.flip(3) if step % 2 else batch


def autoencoder_loss(vae: AutoencoderKL, pixels: Tensor, generator: torch.Generator) -> Tensor:
    posterior = vae.encode(pixels).latent_dist
    restored = vae.decode(posterior.sample(generator=generator)).sample
    error = restored - pixels
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    return error.square().mean() + 0.03 * error.abs().mean() + KL_WEIGHT * kl


def decoder_loss(vae: AutoencoderKL, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Squared error of decoding ``pixels`` (B, 3, h, w), every second one from latents with noise."""
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mode()
    strength = LATENT_NOISE * torch.rand(len(pixels), 1, 1, 1, generator=generator) / vae.config.scaling_factor
    strength[::2] = 0
    noisy = latents + strength * torch.randn(latents.shape, generator=generator)
    return (vae.decode(noisy).sample - pixels).square().mean()


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
def encode(vae: AutoencoderKL, images: NDArray[np.uint8], batch: int = 16) -> Tensor:
    """Encode ``images`` to latent means (N, 12, h, w) float32, not multiplied by the scaling factor."""
    chunks = (images[i : i + batch] for i in range(0, len(images), batch))
    return torch.cat([vae.encode(to_tensor(chunk)).latent_dist.mode() for chunk in chunks])


@torch.no_grad()
def widen(narrow: AutoencoderKL, wide: AutoencoderKL) -> None:
    """Copy the weights of ``narrow`` into ``wide``, which has more latent channels; the rest of ``wide`` stays."""
    few, many = narrow.config.latent_channels, wide.config.latent_channels
    latents = {few: torch.arange(few), 2 * few: torch.cat([torch.arange(few), many + torch.arange(few)])}
    target = wide.state_dict()
    for name, value in narrow.state_dict().items():
        if value.shape == target[name].shape:
            target[name].copy_(value)
            continue
        place: Tensor = target[name]
        places = [
            latents[size] if size != space else torch.arange(size)
            for size, space in zip(value.shape, place.shape, strict=True)
        ]
        place[torch.meshgrid(*places, indexing="ij")] = value


def tune_decoder(vae: AutoencoderKL, sets: Sequence[NDArray[np.uint8]], folder: Path, log: Path) -> None:
    """Train the decoder alone: the latents stay as they are, and with them a U-Net that was trained on them."""
    decoder = nn.ModuleList([vae.post_quant_conv, vae.decoder])

    def loss_at(schedule: TrainingSchedule, step: int) -> Tensor:
        return decoder_loss(vae, training_batch(sets, schedule, step), step_generator(schedule, step + 10**6))

    for schedule in DECODER:
        run_training(schedule, decoder, partial(loss_at, schedule), folder, log)


def train_autoencoder(sets: Sequence[NDArray[np.uint8]], folder: Path, log: Path) -> AutoencoderKL:
    """Train both parts, set the scaling factor to give the latents unit standard deviation, then tune the decoder.

    Args:
        sets: image sets (N, H, W, 3) uint8, of which equal shares of each batch are crops.
        folder: holds the checkpoint.
        log: JSON lines file for the losses.
    """
    torch.manual_seed(0)
    narrow = build_autoencoder(NARROW_CHANNELS).to(memory_format=torch.channels_last)
    vae = build_autoencoder().to(memory_format=torch.channels_last)

    def loss_at(model: AutoencoderKL, schedule: TrainingSchedule, step: int) -> Tensor:
        noise = step_generator(schedule, step + 10**6)
        return autoencoder_loss(model, training_batch(sets, schedule, step), noise)

    run_training(NARROW, narrow, partial(loss_at, narrow, NARROW), folder, log)
    widen(narrow, vae)
    run_training(SCHEDULE, vae, partial(loss_at, vae, SCHEDULE), folder, log)
    latents = torch.cat([encode(vae, images[:512]).flatten() for images in sets])
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    tune_decoder(vae, sets, folder, log)
    return vae


def measure_autoencoder(vae: AutoencoderKL, folder: Path) -> dict[str, float]:
    """PSNR in dB on held-out scenes at the base size, and on crops of that size of larger images."""
    scenes = sample_scenes(256, VALIDATION_SEED)
    report = {"autoencoder_psnr_db": psnr(vae, rendered(scenes, BASE_PX, folder / "autoencoder_validation.npy"))}
    for size in LARGE_SIZES:
        starts = np.random.default_rng(size).integers(size - BASE_PX, size=(24, 2))
        crops = [
            render(scene, size, size)[top : top + BASE_PX, left : left + BASE_PX]
            for scene, (top, left) in zip(scenes, starts, strict=False)
        ]
        report[f"autoencoder_psnr_db_{size}"] = psnr(vae, np.stack(crops))
    return {name: round(value, 2) for name, value in report.items()}
