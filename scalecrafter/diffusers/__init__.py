"""diffusers' pipelines with the method built in: calls above the training size are dilated, all others are plain.

In goes what the pipelines of the same name in diffusers take; out come the same pipelines, whose calls also take
``settings``. `pipeline.py` is the file for diffusers' ``custom_pipeline``.
"""

from scalecrafter.diffusers.stable_diffusion import StableDiffusionPipeline, StableDiffusionXLPipeline

__all__ = ["StableDiffusionPipeline", "StableDiffusionXLPipeline"]
