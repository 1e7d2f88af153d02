"""Pipelines of each family, saved and loaded again, with the settings that are chosen for them."""

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

import scalecrafter
from scalecrafter import Settings


def sample(pipe, height, width):
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0), "output_type": "np"}
    images = pipe("a b", height=height, width=width, **options).images
    assert images.shape == (1, height, width, 3)
    assert np.isfinite(images).all()
    return images


@pytest.mark.parametrize(("family", "size"), [("sd15", (96, 32)), ("sd21", (96, 64)), ("sdxl", (64, 96))])
def test_auto_at_other_sizes(save_pipeline, family, size):
    """It changes the image, and is gone afterwards."""
    pipe = DiffusionPipeline.from_pretrained(save_pipeline(family), local_files_only=True)
    before = sample(pipe, *size)
    with scalecrafter.enable(pipe, height=size[0], width=size[1]):
        changed = sample(pipe, *size)
    assert np.abs(changed - before).max() > 1e-5
    assert np.array_equal(sample(pipe, *size), before)


def test_half_precision_overflow_raises(pipe):
    pipe.to(dtype=torch.float16)
    with torch.no_grad():
        pipe.unet.conv_out.bias.fill_(float("inf"))
    settings = Settings({"mid_block.resnets.0.conv1": 2}, tau=50)
    with (
        scalecrafter.enable(pipe, height=64, width=64, settings=settings),
        pytest.raises(ValueError, match="half precision: load the pipeline in bfloat16"),
    ):
        sample(pipe, 64, 64)
