"""Compiled U-Nets predict what uncompiled ones do, with one graph for each state of the layers."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch._dynamo.utils import counters

import scalecrafter
from experiments.scenes.model import build_scheduler
from scalecrafter import FreeU, Settings, available_settings
from scalecrafter.settings import expand
from scalecrafter.state import state_at
from tests.scalecrafter.small import small_unet
from tests.tiny import predict, tiny_unet

STEPS = (0, 1, 8, 9, 20, 34, 35, 49)
TABLE = expand({"down_blocks.1+s": 2, "mid_block": 4, "up_blocks.1+s": 3})
FIRST, SECOND = "mid_block.resnets.0.conv1", "down_blocks.0.downsamplers.0.conv"


def shrinking(table):
    damped = {"noise_damped_dilation": table | {"conv_in": 2}, "noise_damped_tau": 20}
    return Settings(table, tau=35, progressive=True, **damped)


@pytest.fixture(autouse=True)
def forget_graphs():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def without_attention():
    """A U-Net of one level: three resnets."""
    kinds = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    small = {"sample_size": 8, "layers_per_block": 1, "block_out_channels": (8,), "norm_num_groups": 4}
    return UNet2DConditionModel(cross_attention_dim=16, mid_block_type=None, **kinds, **small)


def as_pipeline(unet):
    return SimpleNamespace(unet=unet, scheduler=build_scheduler(), vae_scale_factor=4)


def pair(make, compiled):
    """A pipeline with a U-Net that ``compiled`` compiles, and one with its uncompiled copy."""
    torch.manual_seed(0)
    plain = as_pipeline(make().eval())
    pipe = as_pipeline(copy.deepcopy(plain.unet))
    wrapped = compiled(pipe.unet)
    pipe.unet = pipe.unet if wrapped is None else wrapped
    return pipe, plain


def predictions(pipe, settings, steps):
    """At each step, as pipelines call: with the timestep as a tensor."""
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        return [predict(pipe, torch.tensor(981 - 20 * step)) for step in steps]


def states(settings, steps):
    """The different states of the layers in both passes; where nothing is changed they are one."""
    found = {state_at(settings, step, {}).key for step in steps}
    damped = [step for step in steps if step < settings.noise_damped_tau]
    return found | {state_at(settings, step, {}, base_pass=True).key for step in damped}


COMPILED = {
    "in place": lambda unet: unet.compile(backend="eager"),
    "wrapped": lambda unet: torch.compile(unet, backend="eager"),
    "with aot_eager": lambda unet: unet.compile(backend="aot_eager"),
}
# U-Net, settings and steps. Each graph of two levels takes seconds with attention, as one below does, and of the
# topology of Stable Diffusion ten.
FACTORS = {"down_blocks.0.resnets.0.conv1": 3, "up_blocks.0.resnets.0.conv1": 2}
SMALL = without_attention, shrinking(FACTORS), (0, 1, 35)
WHOLE = tiny_unet, shrinking(TABLE), STEPS
CASES = [pytest.param("wrapped", *SMALL, id="small")]
CASES += [pytest.param(how, *WHOLE, id=f"whole, {how}", marks=pytest.mark.slow) for how in COMPILED]


@pytest.mark.parametrize(("compiled", "make", "settings", "steps"), CASES)
def test_a_run_is_one_graph_for_each_state(compiled, make, settings, steps):
    """Also the base pass, with half the batch, and when the method is enabled again; the first two steps share one."""
    pipe, plain = pair(make, COMPILED[compiled])
    expected = predictions(plain, settings, steps)
    assert len(states(settings, steps)) >= 3
    for _ in range(2):
        torch.testing.assert_close(predictions(pipe, settings, steps), expected, atol=1e-5, rtol=1e-5)
        assert counters["stats"]["unique_graphs"] == len(states(settings, steps))
    assert not counters["graph_break"]
    without = (predict(each, torch.tensor(1)) for each in (pipe, plain))
    torch.testing.assert_close(*without, atol=1e-5, rtol=1e-5)
    assert not any("_conv_forward" in vars(module) for module in pipe.unet.modules())


def test_shipped_settings_have_few_states():
    """As docs/sampling.md says."""
    counts = {name: len(states(Settings.load(name), range(50))) for name in available_settings()}
    assert {count for name, count in counts.items() if name.endswith(("_x4", "_x6_25"))} == {2}
    assert {count for name, count in counts.items() if name in ("sdxl_x8", "sdxl_x16", "sd21_x8")} == {5, 6}
    assert max(counts.values()) == 9


FRACTIONS = Settings({FIRST: 2.5, SECOND: 2, "conv_in": (1.5, 2)}, tau=50)
PARTS = {
    "fractions": {},
    "dispersion": {"dispersed": (FIRST,), "dispersed_tau": 30},
    "FreeU": {"freeu": FreeU(1.2, 1.4, 0.9, 0.2)},
}
PARTS["all"] = PARTS["dispersion"] | PARTS["FreeU"]
# By default everything at once in one step; SD's states are in the test above.
COMPILED_PARTS = [("sdxl", "all", (0,))]
COMPILED_PARTS += [
    pytest.param(family, part, (0, 40), marks=pytest.mark.slow) for family in ("sd", "sdxl") for part in PARTS
]


@pytest.mark.parametrize(("family", "part", "steps"), COMPILED_PARTS)
def test_every_part_of_the_method_can_be_compiled(family, part, steps):
    pipe, plain = pair(lambda: small_unet(family), COMPILED["in place"])
    settings = replace(FRACTIONS, **PARTS[part])
    found, expected = (predictions(each, settings, steps) for each in (pipe, plain))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_repeated_blocks_are_compiled_once_for_all_states():
    """They are transformer blocks, whose convolutions are none: only their sizes differ, by level and by pass."""
    pipe, plain = pair(tiny_unet, lambda unet: unet.compile_repeated_blocks(backend="eager"))
    settings = shrinking(TABLE)
    first = predictions(pipe, settings, STEPS[:1])
    graphs = counters["stats"]["unique_graphs"]
    assert 0 < graphs <= 8
    found = first + predictions(pipe, settings, STEPS[1:])
    torch.testing.assert_close(found, predictions(plain, settings, STEPS), atol=1e-5, rtol=1e-5)
    assert counters["stats"]["unique_graphs"] == graphs


@pytest.mark.slow
def test_inductor_compiles_the_method():
    pipe, plain = pair(lambda: small_unet("sd"), lambda unet: unet.compile())
    settings = replace(FRACTIONS, **PARTS["dispersion"])
    found, expected = (predictions(each, settings, (0, 40)) for each in (pipe, plain))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
