"""Train the U-Net with its text encoder: v-prediction on cached latents, with caption dropout for classifier-free
guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from experiments.scenes.model import build_scheduler, build_text_encoder, build_unet
from experiments.scenes.training.autoencoder import encode
from experiments.scenes.training.loop import TrainingSchedule, run_training, step_generator

# As Stable Diffusion, first at half the size, where a step costs a third, then at the base size.
SCHEDULES = (
    TrainingSchedule("diffusion-half-size", steps=4500, batch=32, learning_rate=1.2e-3, ema=0.998, warmup=150),
    TrainingSchedule("diffusion", steps=6000, batch=16, learning_rate=1e-3, ema=0.998, warmup=100),
)
CAPTION_DROPOUT = 0.1
ENCODED_AT_ONCE = 512


class TextToImage(nn.Module):
    """U-Net and text encoder as one trainable module."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        return self.unet(noisy, timesteps, self.text_encoder(tokens).last_hidden_state).sample


def training_latents(vae: AutoencoderKL, sets: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
    """Latents (N, 12, h, w) of all ``sets`` (N, H, W, 3) uint8 for each schedule: images halved, and as they are."""
    half, full = [], []
    for images in sets:
        for start in range(0, len(images), ENCODED_AT_ONCE):
            part = np.array(images[start : start + ENCODED_AT_ONCE])
            n, height, width, _ = part.shape
            halved = part.reshape(n, height // 2, 2, width // 2, 2, 3).mean((2, 4)).round().astype(np.uint8)
            half.append(encode(vae, halved))
            full.append(encode(vae, part))
    return [torch.cat(latents) * vae.config.scaling_factor for latents in (half, full)]


def train_diffusion(
    latents: Sequence[Tensor], captions: list[str], tokenizer: CLIPTokenizer, folder: Path, log: Path
) -> tuple[CLIPTextModel, UNet2DConditionModel]:
    """Train text encoder and U-Net.

    Args:
        latents: for each schedule (N, 12, h, w) float32, multiplied by the scaling factor of the autoencoder.
        captions: N captions.
        tokenizer: tokenizer of the captions.
        folder: holds the checkpoints.
        log: JSON lines file for the losses.
    """
    torch.manual_seed(2)
    model = TextToImage(build_text_encoder(tokenizer), build_unet()).to(memory_format=torch.channels_last)
    scheduler = build_scheduler()
    options = {
        "padding": "max_length",
        "truncation": True,
        "max_length": tokenizer.model_max_length,
        "return_tensors": "pt",
    }
    tokens = tokenizer(captions, **options).input_ids
    empty = tokenizer([""], **options).input_ids

    def loss_at(schedule: TrainingSchedule, images: Tensor, step: int) -> Tensor:
        generator = step_generator(schedule, step)
        index = torch.randint(len(images), (schedule.batch,), generator=generator)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (schedule.batch,), generator=generator)
        dropped = torch.rand(schedule.batch, 1, generator=generator) < CAPTION_DROPOUT
        noise = torch.randn(schedule.batch, *images.shape[1:], generator=generator)
        noisy = scheduler.add_noise(images[index], noise, timesteps)
        target = scheduler.get_velocity(images[index], noise, timesteps)
        return (model(noisy, timesteps, torch.where(dropped, empty, tokens[index])) - target).square().mean()

    for schedule, images in zip(SCHEDULES, latents, strict=True):
        run_training(schedule, model, partial(loss_at, schedule, images), folder, log)
    return model.text_encoder, model.unet
