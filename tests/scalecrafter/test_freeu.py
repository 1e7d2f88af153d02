"""FreeU: diffusers' form equals diffusers, and the form of ScaleCrafter's public code selects stages by channels."""

import pytest
import torch
from diffusers import UNet2DConditionModel

import scalecrafter
from scalecrafter import FreeU, Settings
from scalecrafter.freeu import freeu_plan
from tests.tiny import predict

VALUES = {"b1": 1.2, "b2": 1.4, "s1": 0.9, "s2": 0.2}


def test_diffusers_form_equals_diffusers(pipe):
    with scalecrafter.enable(pipe, height=64, width=64, settings=Settings(freeu=FreeU(**VALUES))):
        ours = predict(pipe)
    plain = predict(pipe)
    pipe.enable_freeu(**VALUES)
    torch.testing.assert_close(ours, predict(pipe), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours, plain, atol=1e-4)


@pytest.mark.parametrize("form", ["diffusers", "scalecrafter"])
def test_every_factor_changes_the_prediction(pipe, form):
    def output(**values):
        with scalecrafter.enable(pipe, height=64, width=64, settings=Settings(freeu=FreeU(**values, form=form))):
            return predict(pipe)

    plain = output(**VALUES)
    for name in VALUES:
        assert not torch.allclose(plain, output(**VALUES | {name: 0.5}), atol=1e-5), name


def stages(channels, form):
    levels = len(channels)
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=channels,
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            mid_block_type=None,
            cross_attention_dim=8,
        )
    plan = freeu_plan(unet, FreeU(b1=1, b2=2, s1=1, s2=2, form=form))
    assert all(b == s for _, b, s in plan.values())
    assert all(unet.get_submodule(name).conv1.in_channels > below for name, (below, _, _) in plan.items())
    return {name.removeprefix("up_blocks.").replace(".resnets", ""): b for name, (_, b, _) in plan.items()}


def test_stages_of_stable_diffusion_1_and_2():
    """diffusers: the first two blocks. Public code: 1280 channels from below are stage 1, 640 stage 2."""
    channels = (320, 640, 1280, 1280)
    first, second = dict.fromkeys(("0.0", "0.1", "0.2"), 1), ("1.0", "1.1", "1.2")
    assert stages(channels, "diffusers") == first | dict.fromkeys(second, 2)
    assert stages(channels, "scalecrafter") == (
        first | dict.fromkeys(second, 1) | {"2.0": 1, "2.1": 2, "2.2": 2, "3.0": 2}
    )


def test_stages_of_sdxl():
    channels = (320, 640, 1280)
    assert stages(channels, "diffusers") == {"0.0": 1, "0.1": 1, "0.2": 1, "1.0": 2, "1.1": 2, "1.2": 2}
    assert stages(channels, "scalecrafter") == {"0.0": 1, "0.1": 1, "0.2": 1, "1.0": 1, "1.1": 2, "1.2": 2, "2.0": 2}
