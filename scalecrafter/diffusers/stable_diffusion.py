"""Stable Diffusion's text-to-image pipelines, each call of which enables the method for its own size.

They keep the names that they have in diffusers: what they save is loaded by diffusers alone, and what asks for a
pipeline by its name (`AutoPipelineForImage2Image.from_pipe`, noise-damped guidance) finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers

from scalecrafter.enable import enable
from scalecrafter.settings import Settings


class Enlarging:
    """The call of a pipeline with the method enabled in it."""

    def __call__(self, *args: Any, settings: str | Path | Mapping[str, Any] | Settings = "auto", **kwargs: Any) -> Any:
        """The pipeline's own call, with the method enabled for the height and width that it is given, in pixels.

        Args:
            args: of the pipeline in diffusers: the prompt, then the height and the width in pixels.
            settings: "auto", a `Settings`, or what `Settings.load` accepts: a name of `available_settings`, the path
                of a YAML file, or a parsed mapping. A call at the training area or below is the plain model's.
            kwargs: of the pipeline in diffusers, all of them.

        Returns:
            What the pipeline in diffusers returns, the images in `images`.

        Raises:
            ValueError: as `scalecrafter.enable`, and as the pipeline in diffusers.
        """
        with enable(self, settings=settings):
            return super().__call__(*args, **kwargs)  # type: ignore[misc]


class StableDiffusionPipeline(Enlarging, diffusers.StableDiffusionPipeline):
    """diffusers' `StableDiffusionPipeline`, for Stable Diffusion 1.x and 2.x: the same but for its call."""


class StableDiffusionXLPipeline(Enlarging, diffusers.StableDiffusionXLPipeline):
    """diffusers' `StableDiffusionXLPipeline`, for Stable Diffusion XL: the same but for its call."""
