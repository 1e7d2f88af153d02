"""Upscaling baselines: sample at the training size, then enlarge the picture.

Published comparisons show that a plain upscaler rivals most methods, so a table without one flatters them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from baselines.direct import Direct
from baselines.method import Calls, Request
from scalecrafter.pipeline import check_size, folder_digest, pixels_per_cell, training_size


def base_size(pipe: Any, height: int, width: int) -> tuple[int, int]:
    """(height, width) in pixels near the training area with the aspect of the target, as the model can draw it."""
    train_height, train_width = training_size(pipe)
    multiple = pixels_per_cell(pipe) * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    scale = math.sqrt(train_height * train_width / (height * width))
    sides = [max(multiple, round(side * scale / multiple) * multiple) for side in (height, width)]
    return sides[0], sides[1]


def lanczos(images: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(N, H, W, 3) uint8 resized with Pillow's Lanczos filter."""
    resized = (Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS) for image in images)
    return np.stack([np.asarray(image) for image in resized])


@dataclass(frozen=True)
class Upscale:
    """A sample of the training size, resized with a Lanczos filter."""

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        check_size(pipe, height, width)
        return {"base_size": list(base_size(pipe, height, width))}

    def base_request(self, pipe: Any, request: Request) -> Request:
        """The same pictures near the training size."""
        height, width = base_size(pipe, request.height, request.width)
        return replace(request, height=height, width=width)

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        return [replace(calls, timestep=None) for calls in Direct().calls(pipe, self.base_request(pipe, request))]

    def enlarge(self, images: NDArray[np.uint8], request: Request) -> NDArray[np.uint8]:
        """Base-size ``images`` at the size asked for."""
        return lanczos(images, request.height, request.width)

    def generate(self, pipe: Any, request: Request) -> NDArray[np.uint8]:
        return self.enlarge(Direct().generate(pipe, self.base_request(pipe, request)), request)


@cache
def load_upscaler(model: str) -> tuple[Any, str]:
    """diffusers' x4 upscaler from a local folder or hub id, safetensors only, and the digest of its files."""
    from diffusers import StableDiffusionUpscalePipeline

    try:
        there = Path(model).is_dir()
        folder = Path(model if there else StableDiffusionUpscalePipeline.download(model, use_safetensors=True))
        pipe = StableDiffusionUpscalePipeline.from_pretrained(folder, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no x4 upscaler at {model!r}: give the folder of a StableDiffusionUpscalePipeline, "
            "or fetch stabilityai/stable-diffusion-x4-upscaler first"
        ) from error
    pipe.set_progress_bar_config(disable=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return pipe.to(device, torch.float16 if device == "cuda" else torch.float32), folder_digest(folder)


@dataclass(frozen=True)
class UpscaleSD(Upscale):
    """A sample of the training size, through Stable Diffusion's x4 upscaler, then Lanczos to the size asked for.

    Args:
        model: folder or hub id of a StableDiffusionUpscalePipeline.
        steps, guidance_scale, noise_level: of the upscaler.
    """

    model: str = "stabilityai/stable-diffusion-x4-upscaler"
    steps: int = 50
    guidance_scale: float = 9.0
    noise_level: int = 20

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        _, digest = load_upscaler(self.model)
        options = {"steps": self.steps, "guidance_scale": self.guidance_scale, "noise_level": self.noise_level}
        return super().describe(pipe, height, width) | {"upscaler_sha256": digest} | options

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        raise ValueError("upscale_sd cannot be planned: most of its work is another model's")

    def enlarge(self, images: NDArray[np.uint8], request: Request) -> NDArray[np.uint8]:
        upscaler, large = load_upscaler(self.model)[0], []
        for image, prompt, seed in zip(images, request.prompts, request.seeds, strict=True):
            enlarged = upscaler(
                prompt,
                image=Image.fromarray(image),
                num_inference_steps=self.steps,
                guidance_scale=self.guidance_scale,
                noise_level=self.noise_level,
                generator=torch.Generator("cpu").manual_seed(seed),
            ).images[0]
            large.append(lanczos(np.asarray(enlarged)[None], request.height, request.width)[0])
        return np.stack(large)
