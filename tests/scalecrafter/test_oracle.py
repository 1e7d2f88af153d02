"""The whole enabled U-Net against one whose layers are changed by hand, for every shipped setting and step."""

from functools import cache
from types import SimpleNamespace

import pytest
import torch

import scalecrafter
from experiments.scenes.model import build_scheduler
from scalecrafter import Settings, available_settings, noise_damped
from tests.scalecrafter.by_hand import Changing, layers_at
from tests.tiny import TEXT_WIDTH, predict, tiny_sdxl_unet, tiny_unet, unet_inputs

STEPS = 50
BEFORE = {name: index % 2 == 0 for index, name in enumerate(available_settings())}


@cache
def pipeline(family: str) -> SimpleNamespace:
    """As much of one as a call of the U-Net needs."""
    torch.manual_seed(0)
    unet = tiny_sdxl_unet() if family == "sdxl" else tiny_unet(TEXT_WIDTH[family])
    return SimpleNamespace(unet=unet.eval(), scheduler=build_scheduler(), vae_scale_factor=4)


def around_changes(settings: Settings, before: bool) -> list[int]:
    """The steps before or after each change of the layers, the first and the last."""
    layers = [(layers_at(settings, step, False), layers_at(settings, step, True)) for step in range(STEPS)]
    changes = {step for step in range(1, STEPS) if layers[step] != layers[step - 1]}
    return sorted({step - before for step in changes} | {0, STEPS - 1})


@pytest.mark.parametrize(
    ("name", "every"),
    [pytest.param(n, e, marks=pytest.mark.slow if e else ()) for n in available_settings() for e in (False, True)],
)
@torch.no_grad()
def test_every_shipped_setting(name, every):
    """Before each change of the layers, after it for every other setting, or in every step; base pass included."""
    settings, pipe = Settings.load(name), pipeline(name.split("_")[0])
    changing = Changing(pipe.unet, settings, pipe.unet)
    steps, expected = range(STEPS) if every else around_changes(settings, BEFORE[name]), []
    for step in steps:
        inputs = unet_inputs(pipe) | {"timestep": 981 - 20 * step}
        prediction = changing(layers_at(settings, step, False), **inputs).sample
        if step < settings.noise_damped_tau:
            base = changing(layers_at(settings, step, True), **inputs).sample.chunk(2)[0]
            prediction = torch.cat(noise_damped(base, *prediction.chunk(2)))
        expected.append(prediction)
    assert len({layers_at(settings, step, False) for step in steps}) > 1
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        for step, each in zip(steps, expected, strict=True):
            found = predict(pipe, 981 - 20 * step)
            assert ((found - each).norm() / each.norm()).item() <= 1e-4
