"""For ``DiffusionPipeline.from_pretrained(..., custom_pipeline=DIR)``, where DIR is the folder of this file.

diffusers copies the file and takes the one class in it that is a pipeline. Current versions do so only with their
``trust_remote_code``; ``ScaleCrafterPipeline.from_pretrained(...)`` is the same without it.
"""

from __future__ import annotations

import inspect
from typing import Any

from diffusers import DiffusionPipeline

from scalecrafter.diffusers import stable_diffusion
from scalecrafter.pipeline import is_sdxl


class ScaleCrafterPipeline(DiffusionPipeline):
    """Makes a `StableDiffusionPipeline` or a `StableDiffusionXLPipeline` of this package, as its parts say."""

    _optional_components = [
        *("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
        *("safety_checker", "feature_extractor", "image_encoder"),
    ]

    def __new__(cls, **parts: Any) -> Any:
        xl = is_sdxl(parts["unet"])
        kind = stable_diffusion.StableDiffusionXLPipeline if xl else stable_diffusion.StableDiffusionPipeline
        accepted = inspect.signature(kind.__init__).parameters
        given = dict.fromkeys(kind._optional_components) | parts
        return kind(**{name: part for name, part in given.items() if name in accepted})

    # Never called, as `__new__` returns another class: diffusers reads from it what a folder may hold.
    def __init__(
        self,
        vae,
        unet,
        scheduler,
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=True,
        force_zeros_for_empty_prompt=True,
        add_watermarker=None,
    ) -> None:
        raise NotImplementedError
