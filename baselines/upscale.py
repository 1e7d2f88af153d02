"""Upscaling baselines: sample at the training size, then enlarge the image.

Published comparisons show that a plain upscaler rivals most methods, so a comparison without one is too favourable.
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
from scalecrafter.pipeline import check_size, size_multiple, training_size


def base_size(pipe: Any, height: int, width: int) -> tuple[int, int]:
    """Valid (height, width) in pixels with about the training area and the aspect ratio of the target."""
    train_height, train_width = training_size(pipe)
    multiple = size_multiple(pipe)
    scale = math.sqrt(train_height * train_width / (height * width))
    sides = [max(multiple, round(side * scale / multiple) * multiple) for side in (height, width)]
    return sides[0], sides[1]


def lanczos(images: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(N, H, W, 3) uint8 images resized to (N, height, width, 3) with Pillow's Lanczos filter."""
    resized = (Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS) for image in images)
    return np.stack([np.asarray(image) for image in resized])


@dataclass(frozen=True)
class Upscale:
    """Direct inference near the training size, resized with a Lanczos filter."""

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        check_size(pipe, height, width)
        return {"base_size": list(base_size(pipe, height, width))}

    def base_request(self, pipe: Any, request: Request) -> Request:
        """The same request near the training size."""
        height, width = base_size(pipe, request.height, request.width)
        return replace(request, height=height, width=width)

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """The calls of direct inference near the training size."""
        return Direct().calls(pipe, self.base_request(pipe, request))

    def enlarge(self, images: NDArray[np.uint8], request: Request) -> NDArray[np.uint8]:
        """Enlarge images of the base size to the requested size."""
        return lanczos(images, request.height, request.width)

    def generate(self, pipe: Any, request: Request) -> NDArray[np.uint8]:
        return self.enlarge(Direct().generate(pipe, self.base_request(pipe, request)), request)


@cache
def locate_upscaler(model: str) -> Path:
    """Folder of diffusers' x4 upscaler, local or in the hub's cache, to which it is downloaded at most once.

    Raises:
        ValueError: no such folder, and nothing that can be downloaded.
    """
    from diffusers import StableDiffusionUpscalePipeline

    try:
        local = Path(model).is_dir()
        folder = Path(model if local else StableDiffusionUpscalePipeline.download(model, use_safetensors=True))
    except (OSError, ValueError) as error:
        raise missing_upscaler(model) from error
    if not (folder / "model_index.json").is_file():
        raise missing_upscaler(model)
    return folder


@cache
def load_upscaler(model: str) -> Any:
    """The x4 upscaler, from safetensors only, on a GPU in float16 or a CPU in float32; ValueError if there is none."""
    from diffusers import StableDiffusionUpscalePipeline

    try:
        pipe = StableDiffusionUpscalePipeline.from_pretrained(locate_upscaler(model), use_safetensors=True)
    except (OSError, ValueError) as error:
        raise missing_upscaler(model) from error
    pipe.set_progress_bar_config(disable=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return pipe.to(device, torch.float16 if device == "cuda" else torch.float32)


def missing_upscaler(model: str) -> ValueError:
    return ValueError(
        f"no x4 upscaler at {model!r}: give the folder of a StableDiffusionUpscalePipeline, "
        "or fetch stabilityai/stable-diffusion-x4-upscaler first"
    )


@dataclass(frozen=True)
class UpscaleSD(Upscale):
    """Direct inference near the training size, Stable Diffusion's x4 upscaler, then Lanczos to the requested size.

    Args:
        model: folder or hub id of a StableDiffusionUpscalePipeline.
        steps, guidance_scale, noise_level: sampling options of the upscaler.
    """

    model: str = "stabilityai/stable-diffusion-x4-upscaler"
    steps: int = 50
    guidance_scale: float = 9.0
    noise_level: int = 20

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        options = {"steps": self.steps, "guidance_scale": self.guidance_scale, "noise_level": self.noise_level}
        weights = {"upscaler_sha256": locate_upscaler(self.model)}
        return super().describe(pipe, height, width) | weights | options

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """Raises ValueError: the upscaler, another model, does most of the work."""
        raise ValueError("upscale_sd cannot be planned: the upscaler, another model, does most of the work")

    def enlarge(self, images: NDArray[np.uint8], request: Request) -> NDArray[np.uint8]:
        upscaler, enlarged = load_upscaler(self.model), []
        for image, prompt, seed in zip(images, request.prompts, request.seeds, strict=True):
            upscaled = upscaler(
                prompt,
                image=Image.fromarray(image),
                num_inference_steps=self.steps,
                guidance_scale=self.guidance_scale,
                noise_level=self.noise_level,
                generator=torch.Generator("cpu").manual_seed(seed),
            ).images[0]
            enlarged.append(lanczos(np.asarray(upscaled)[None], request.height, request.width)[0])
        return np.stack(enlarged)
