"""Stable Diffusion 1.5's U-Net at its true size, with random weights: a re-dilated call within a machine's memory."""

import resource
from dataclasses import replace

import pytest
import torch

import scalecrafter
from experiments.architectures import load_architecture
from experiments.config import compose_config, model_source
from experiments.work import unet_inputs


class Pipeline:
    """What the library needs of one, around a U-Net alone."""

    vae_scale_factor = 8

    def __init__(self, unet, scheduler):
        self.unet, self.scheduler = unet, scheduler


@pytest.fixture(scope="module")
def pipe():
    shape = load_architecture(model_source(dict(compose_config(["model=sd15", "model.dtype=float32"]).model))).pipe
    torch.manual_seed(0)
    unet = type(shape.unet).from_config(shape.unet.config).eval().to(memory_format=torch.channels_last)
    return Pipeline(unet, shape.scheduler)


@pytest.mark.slow
@pytest.mark.parametrize("side", [1024, 2048])
@torch.no_grad()
def test_a_redilated_call_fits_into_24_gb(pipe, side):
    inputs = unet_inputs(pipe.unet, 1, side // 8, side // 8, 77)
    settings = f"sd15_x{(side // 512) ** 2}"
    plain = scalecrafter.load_settings(settings)
    with scalecrafter.enable(pipe, height=side, width=side, settings=without_damping(plain)):
        found = pipe.unet(**inputs, timestep=981).sample
    assert found.shape == inputs["sample"].shape
    assert found.isfinite().all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 24e9


def without_damping(settings):
    """Of a single sample there is no guidance pair to damp."""
    return replace(settings, noise_damped_tau=0)
