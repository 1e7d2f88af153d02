"""The whole enabled U-Net against a copy whose layers are changed by hand, for every shipped setting and step."""

from functools import cache
from types import SimpleNamespace

import pytest
import torch

import scalecrafter
from experiments.scenes.model import build_scheduler
from scalecrafter import Settings, available_settings, noise_damped
from tests.scalecrafter.by_hand import changed_copy, layers_at
from tests.tiny import TEXT_WIDTH, tiny_sdxl_unet, tiny_unet, unet_inputs

STEPS = 50


@torch.no_grad()
def changed_by_hand(unet, settings, layers, inputs):
    return changed_copy(unet, settings, layers)(**inputs).sample


@cache
def pipeline(family: str) -> SimpleNamespace:
    """As much of one as a call of the U-Net needs."""
    torch.manual_seed(0)
    unet = tiny_sdxl_unet() if family == "sdxl" else tiny_unet(TEXT_WIDTH[family])
    return SimpleNamespace(unet=unet.eval(), scheduler=build_scheduler(), vae_scale_factor=4)


@pytest.mark.parametrize("name", available_settings())
def test_every_state_of_every_shipped_setting(name):
    """States repeat over the steps: each is compared once, base pass included."""
    settings, pipe = Settings.load(name), pipeline(name.split("_")[0])
    seen = set()
    for step in range(STEPS):
        damped = step < settings.noise_damped_tau
        state = layers_at(settings, step, False), damped and layers_at(settings, step, True)
        if state in seen:
            continue
        seen.add(state)
        inputs = unet_inputs(pipe) | {"timestep": 981 - 20 * step}
        expected = changed_by_hand(pipe.unet, settings, state[0], inputs)
        if damped:
            base = changed_by_hand(pipe.unet, settings, state[1], inputs).chunk(2)[0]
            expected = torch.cat(noise_damped(base, *expected.chunk(2)))
        with scalecrafter.enable(pipe, height=64, width=64, settings=settings), torch.no_grad():
            found = pipe.unet(**inputs).sample
        assert ((found - expected).norm() / expected.norm()).item() <= 1e-4
    assert len(seen) > 1
