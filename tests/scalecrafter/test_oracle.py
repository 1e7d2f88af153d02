"""The whole enabled U-Net against a copy whose layers are changed by hand, for every shipped setting and step."""

import copy
import math
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import scalecrafter
from experiments.scenes.model import build_scheduler
from scalecrafter import Settings, available_settings, disperse_kernel, dispersion_transform, noise_damped
from tests.tiny import TEXT_WIDTH, tiny_sdxl_unet, tiny_unet, unet_inputs

STEPS = 50
TRANSFORM = dispersion_transform()  # 3x3 to 5x5, as shipped


class ByHand(nn.Module):
    """A convolution with its taps ``factor`` apart, by the paper's formulas."""

    def __init__(self, conv: nn.Conv2d, factor: float, dispersed: bool) -> None:
        super().__init__()
        self.conv, self.factor = conv, factor / 2 if dispersed else factor
        self.weight = disperse_kernel(conv.weight, TRANSFORM) if dispersed else conv.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = math.ceil(self.factor)
        padding = whole * (self.weight.shape[-1] // 2)
        size = [round(side * whole / self.factor) for side in x.shape[-2:]]
        large = x if whole == self.factor else F.interpolate(x, size, mode="bilinear")
        y = F.conv2d(large, self.weight, self.conv.bias, self.conv.stride, padding, whole)
        wanted = [-(-side // self.conv.stride[0]) for side in x.shape[-2:]]
        return y if list(y.shape[-2:]) == wanted else F.interpolate(y, wanted, mode="bilinear")


def factors(settings: Settings, step: int, base: bool) -> tuple[tuple[str, float, bool], ...]:
    """(layer, factor, dispersed) at a step of 50, by the rule of the public code."""
    table, tau = (
        (settings.noise_damped_dilation, settings.noise_damped_tau) if base else (settings.dilation, settings.tau)
    )
    if step >= tau:
        return ()
    return tuple(
        (
            name,
            max(math.ceil(d * (tau - step) / tau), 2) if settings.progressive else d,
            step < settings.dispersed_tau and name in settings.dispersed,
        )
        for name, d in table.items()
    )


@torch.no_grad()
def changed_by_hand(unet: nn.Module, layers: tuple[tuple[str, float, bool], ...], inputs: dict) -> torch.Tensor:
    changed = copy.deepcopy(unet)
    for name, factor, dispersed in layers:
        owner, _, attribute = name.rpartition(".")
        setattr(changed.get_submodule(owner), attribute, ByHand(changed.get_submodule(name), factor, dispersed))
    return changed(**inputs).sample


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
        state = factors(settings, step, False), damped and factors(settings, step, True)
        if state in seen:
            continue
        seen.add(state)
        inputs = unet_inputs(pipe) | {"timestep": 981 - 20 * step}
        expected = changed_by_hand(pipe.unet, state[0], inputs)
        if damped:
            base = changed_by_hand(pipe.unet, state[1], inputs).chunk(2)[0]
            expected = torch.cat(noise_damped(base, *expected.chunk(2)))
        with scalecrafter.enable(pipe, height=64, width=64, settings=settings), torch.no_grad():
            found = pipe.unet(**inputs).sample
        assert ((found - expected).norm() / expected.norm()).item() <= 1e-4
    assert len(seen) > 1
