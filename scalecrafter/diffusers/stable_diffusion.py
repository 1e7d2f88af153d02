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
        """As the pipeline's own call.

        Args:
            settings: "auto", a `Settings`, or what `Settings.load` accepts: a name of `available_settings`, the path
                of a YAML file, or a parsed mapping. A call at the training area or below is the plain model's.

        Raises:
            ValueError: as `scalecrafter.enable`.
        """
        with enable(self, settings=settings):
            return super().__call__(*args, **kwargs)  # type: ignore[misc]


class StableDiffusionPipeline(Enlarging, diffusers.StableDiffusionPipeline):
    """Stable Diffusion 1.x and 2.x."""


class StableDiffusionXLPipeline(Enlarging, diffusers.StableDiffusionXLPipeline):
    """Stable Diffusion XL."""
