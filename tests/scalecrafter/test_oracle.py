"""The whole enabled U-Net against a copy whose layers are changed by hand, for every shipped setting and step."""

from functools import cache
from types import SimpleNamespace

import pytest
import torch

import scalecrafter
from experiments.scenes.model import build_scheduler
from scalecrafter import Settings, available_settings, noise_damped
from tests.scalecrafter.by_hand import changed_copy, layers_at
from tests.tiny import TEXT_WIDTH, predict, tiny_sdxl_unet, tiny_unet, unet_inputs

STEPS = 50


@cache
def pipeline(family: str) -> SimpleNamespace:
    """As much of one as a call of the U-Net needs."""
    torch.manual_seed(0)
    unet = tiny_sdxl_unet() if family == "sdxl" else tiny_unet(TEXT_WIDTH[family])
    return SimpleNamespace(unet=unet.eval(), scheduler=build_scheduler(), vae_scale_factor=4)


@pytest.mark.parametrize("name", available_settings())
@torch.no_grad()
def test_every_step_of_every_shipped_setting(name):
    """Base pass included. States repeat over the steps: a copy is changed once for each."""
    settings, pipe = Settings.load(name), pipeline(name.split("_")[0])
    copy_of = cache(lambda layers: changed_copy(pipe.unet, settings, layers))
    expected = []
    for step in range(STEPS):
        inputs = unet_inputs(pipe) | {"timestep": 981 - 20 * step}
        prediction = copy_of(layers_at(settings, step, False))(**inputs).sample
        if step < settings.noise_damped_tau:
            base = copy_of(layers_at(settings, step, True))(**inputs).sample.chunk(2)[0]
            prediction = torch.cat(noise_damped(base, *prediction.chunk(2)))
        expected.append(prediction)
    assert copy_of.cache_info().currsize > 1
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        for step in range(STEPS):
            found = predict(pipe, 981 - 20 * step)
            assert ((found - expected[step]).norm() / expected[step].norm()).item() <= 1e-4
