"""Train the U-Net with its text encoder: v-prediction on cached latents, with caption dropout for classifier-free
guidance.

The last two stages teach what Stable Diffusion learns from photographs: that parts of an object may be as large as the
frame. Half of their images are close-ups; where little noise is left, most of them have the caption of a whole scene.
Without them the model fills an object that is larger than usual with small parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from experiments.scenes.model import build_scheduler, build_text_encoder, build_unet
from experiments.scenes.renderer.scene import Scene
from experiments.scenes.training.autoencoder import encode
from experiments.scenes.training.loop import TrainingSchedule, run_training, step_generator


@dataclass(frozen=True)
class Stage:
    """A stage of the training: how long, on which latents, and how it shows close-ups."""

    schedule: TrainingSchedule
    halved: bool = False  # images of half the base size
    close_up_share: float | None = None  # of each batch; None: as many as the training set has
    plain_below: int = 0  # timestep below which most close-ups have the caption of the whole scene


# As Stable Diffusion, first at half the size, where a step costs a third, then at the base size.
STAGES = (
    Stage(TrainingSchedule("diffusion-half-size", 4500, batch=32, learning_rate=1.2e-3, ema=0.998, warmup=150), True),
    Stage(TrainingSchedule("diffusion", 6000, batch=16, learning_rate=1e-3, ema=0.998)),
    Stage(
        TrainingSchedule("diffusion-scales", 5000, batch=16, learning_rate=8e-4, ema=0.998),
        close_up_share=0.5,
        plain_below=600,
    ),
    Stage(
        TrainingSchedule("diffusion-longer", 4500, batch=16, learning_rate=8e-4, ema=0.998),
        close_up_share=0.5,
        plain_below=600,
    ),
)
PLAIN_SHARE = 0.75
CAPTION_DROPOUT = 0.1
ENCODED_AT_ONCE = 512


class TextToImage(nn.Module):
    """U-Net and text encoder as one trainable module."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        return self.unet(noisy, timesteps, self.text_encoder(tokens).last_hidden_state).sample


def training_latents(vae: AutoencoderKL, sets: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, Tensor]:
    """Latents (N, 12, h, w) of all ``sets`` (N, H, W, 3) uint8: of the images halved, and as they are."""
    half, full = [], []
    for images in sets:
        for start in range(0, len(images), ENCODED_AT_ONCE):
            part = np.array(images[start : start + ENCODED_AT_ONCE])
            n, height, width, _ = part.shape
            halved = part.reshape(n, height // 2, 2, width // 2, 2, 3).mean((2, 4)).round().astype(np.uint8)
            half.append(encode(vae, halved))
            full.append(encode(vae, part))
    scale = vae.config.scaling_factor
    return torch.cat(half) * scale, torch.cat(full) * scale


def draw_examples(
    stage: Stage, close: Tensor, timesteps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one batch: positions in the training set, timesteps below ``timesteps``, and which captions are plain.

    Args:
        stage: what to draw.
        close: (N,) bool, which images are close-ups.
        timesteps: of the training schedule.
        generator: of all that is drawn.

    Returns:
        Three tensors (B,): int64, int64 and bool.
    """
    shape = (stage.schedule.batch,)
    index = torch.randint(len(close), shape, generator=generator)
    times = torch.randint(timesteps, shape, generator=generator)
    if stage.close_up_share is None:
        return index, times, torch.zeros(shape, dtype=torch.bool)
    wanted = torch.rand(shape, generator=generator) < stage.close_up_share
    near, far = close.nonzero()[:, 0], (~close).nonzero()[:, 0]
    index = torch.where(wanted, near[index % len(near)], far[index % len(far)])
    return index, times, (times < stage.plain_below) & (torch.rand(shape, generator=generator) < PLAIN_SHARE)


def train_diffusion(
    latents: tuple[Tensor, Tensor], scenes: Sequence[Scene], tokenizer: CLIPTokenizer, folder: Path, log: Path
) -> tuple[CLIPTextModel, UNet2DConditionModel]:
    """Train text encoder and U-Net.

    Args:
        latents: of images halved and as they are, each (N, 12, h, w) float32, multiplied by the scaling factor of the
            autoencoder.
        scenes: what the N images show.
        tokenizer: tokenizer of the captions.
        folder: holds the checkpoints.
        log: JSON lines file for the losses.
    """
    torch.manual_seed(2)
    model = TextToImage(build_text_encoder(tokenizer), build_unet()).to(memory_format=torch.channels_last)
    scheduler = build_scheduler()

    def tokens_of(captions: list[str]) -> Tensor:
        length = tokenizer.model_max_length
        return tokenizer(
            captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).input_ids

    tokens = tokens_of([scene.caption for scene in scenes])
    plain_tokens = tokens_of([replace(scene, zoom=1.0).caption for scene in scenes])
    empty = tokens_of([""])
    close = torch.tensor([scene.zoom > 1 for scene in scenes])

    def loss_at(stage: Stage, images: Tensor, step: int) -> Tensor:
        generator = step_generator(stage.schedule, step)
        index, timesteps, plain = draw_examples(stage, close, scheduler.config.num_train_timesteps, generator)
        dropped = torch.rand(len(index), 1, generator=generator) < CAPTION_DROPOUT
        noise = torch.randn(len(index), *images.shape[1:], generator=generator)
        noisy = scheduler.add_noise(images[index], noise, timesteps)
        target = scheduler.get_velocity(images[index], noise, timesteps)
        captions = torch.where(plain[:, None], plain_tokens[index], tokens[index])
        return (model(noisy, timesteps, torch.where(dropped, empty, captions)) - target).square().mean()

    halved, full = latents
    for stage in STAGES:
        images = halved if stage.halved else full
        run_training(stage.schedule, model, partial(loss_at, stage, images), folder, log)
    return model.text_encoder, model.unet
