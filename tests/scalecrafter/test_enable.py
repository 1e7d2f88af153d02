"""`enable` on real pipelines: it acts, only when and where it should, and leaves nothing behind."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import scalecrafter
from baselines.direct import Direct
from baselines.method import Request, Sampler
from baselines.scalecrafter import ScaleCrafter
from scalecrafter import Settings
from scalecrafter.settings import expand

TABLE = expand({"down_blocks.1+s": 2, "mid_block": 2, "up_blocks.1+s": 1.5})
ACTIVE = Settings(TABLE, tau=50)


def predict(pipe, t=500, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sample, text = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 5, 16, generator=generator)
    with torch.no_grad():
        return pipe.unet(sample, t, text).sample


def snapshot(pipe):
    """Everything that could be changed about each module: own attributes, hooks and parameters."""
    state = {}
    for name, module in pipe.unet.named_modules():
        own = {k: copy.copy(v) if isinstance(v, (dict, set, list)) else v for k, v in module.__dict__.items()}
        del own["_parameters"]
        state[name] = own, {n: p.clone() for n, p in module.named_parameters(recurse=False)}, module.forward.__func__
    return state


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a is b or bool(a == b)


def test_the_pipeline_is_restored_bit_for_bit(pipe):
    before, output = snapshot(pipe), predict(pipe)
    freeu = scalecrafter.FreeU(1.2, 1.4, 0.9, 0.2)
    damped = {"noise_damped_dilation": {"conv_in": 2}, "noise_damped_tau": 50}
    settings = replace(ACTIVE, dispersed=tuple(TABLE), dispersed_tau=50, freeu=freeu, **damped)
    handle = scalecrafter.enable(pipe, height=64, width=64, settings=settings)
    assert not torch.equal(predict(pipe), output)
    handle.disable()
    handle.disable()
    assert same(before, snapshot(pipe))
    assert torch.equal(predict(pipe), output)


def test_it_is_restored_after_an_error_inside_the_context(pipe):
    before = snapshot(pipe)
    with pytest.raises(RuntimeError, match="stop"), scalecrafter.enable(pipe, height=64, width=64, settings=ACTIVE):
        raise RuntimeError("stop")
    assert same(before, snapshot(pipe))


def test_factor_one_everywhere_is_direct_exactly(pipe):
    output = predict(pipe)
    ones = Settings(dict.fromkeys(TABLE, 1), tau=50)
    with scalecrafter.enable(pipe, height=64, width=64, settings=ones):
        assert torch.equal(predict(pipe), output)


@pytest.mark.parametrize("timestep", [lambda t: t, float, torch.tensor, lambda t: torch.tensor([t, t])])
def test_the_window_follows_the_timestep(pipe, timestep):
    """tau = 20 is reached between t = 601 and t = 600, in whatever order the timesteps come."""
    with scalecrafter.enable(pipe, height=64, width=64, settings=Settings(TABLE, tau=20)):
        dilated = {t: predict(pipe, timestep(t)) for t in (600, 601, 1, 999, 300)}
    changed = {t for t, output in dilated.items() if not torch.equal(output, predict(pipe, timestep(t)))}
    assert changed == {601, 999}


def test_only_the_named_layers_are_dilated(pipe):
    """An impulse through one enabled convolution spreads by d cells; its neighbours in the table are untouched."""
    conv = pipe.unet.mid_block.resnets[0].conv1
    x = torch.zeros(1, 16, 9, 9)
    x[:, :, 4, 4] = 1
    table = {"mid_block.resnets.0.conv1": 3}
    with scalecrafter.enable(pipe, height=64, width=64, settings=Settings(table, tau=50)), torch.no_grad():
        predict(pipe)  # sets the factors of a step
        response = conv(x) - conv.bias.view(1, -1, 1, 1)
        other = pipe.unet.mid_block.resnets[0].conv2(x) - pipe.unet.mid_block.resnets[0].conv2.bias.view(1, -1, 1, 1)
    assert {tuple(cell) for cell in response[0, 0].abs().gt(1e-6).nonzero().tolist()} == {
        (r, c) for r in (1, 4, 7) for c in (1, 4, 7)
    }
    assert {tuple(cell) for cell in other[0, 0].abs().gt(1e-6).nonzero().tolist()} == {
        (r, c) for r in (3, 4, 5) for c in (3, 4, 5)
    }


def test_two_factors_spread_each_direction_by_its_own(pipe):
    conv = pipe.unet.mid_block.resnets[0].conv1
    x = torch.zeros(1, 16, 9, 9)
    x[:, :, 4, 4] = 1
    table = {"mid_block.resnets.0.conv1": (3, 2)}
    with scalecrafter.enable(pipe, height=64, width=64, settings=Settings(table, tau=50)), torch.no_grad():
        predict(pipe)
        response = conv(x) - conv.bias.view(1, -1, 1, 1)
    assert {tuple(cell) for cell in response[0, 0].abs().gt(1e-6).nonzero().tolist()} == {
        (r, c) for r in (1, 4, 7) for c in (2, 4, 6)
    }


@pytest.mark.parametrize(("d", "step", "reach"), [(4, 0, 4), (2, 0, 2), (3, 0, 4), (4, 30, 4)])
def test_a_dispersed_layer_spans_what_its_dilation_spanned(pipe, d, step, reach):
    """5x5 taps d / 2 apart; 3 leaves 1.5, which interpolates and reaches a little further. After dispersed_tau = 20
    the 3x3 kernel is back, with the whole of d.
    """
    name = "mid_block.resnets.0.conv1"
    conv = pipe.unet.get_submodule(name)
    x = torch.zeros(1, 16, 17, 17)
    x[:, :, 8, 8] = 1
    settings = Settings({name: d}, tau=50, dispersed=(name,), dispersed_tau=20)
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings), torch.no_grad():
        predict(pipe, 999 - 20 * step)
        response = (conv(x) - conv.bias.view(1, -1, 1, 1))[0, 0].abs().gt(1e-6)
    rows = response.any(1).nonzero().flatten().tolist()
    assert (min(rows), max(rows)) == (8 - reach, 8 + reach)
    expected = {(4, 0): 5, (2, 0): 5, (4, 30): 3}.get((d, step))
    if expected:
        assert len(rows) == expected


def test_a_dispersed_layer_is_the_convolution_with_the_dispersed_kernel(pipe):
    name = "down_blocks.1.downsamplers.0.conv"  # stride 2
    conv = pipe.unet.get_submodule(name)
    x = torch.randn(1, 16, 11, 10, generator=torch.Generator().manual_seed(0))
    settings = Settings({name: 4}, tau=50, dispersed=(name,), dispersed_tau=50)
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings), torch.no_grad():
        predict(pipe)
        actual = conv(x)
    kernel = scalecrafter.disperse_kernel(conv.weight, scalecrafter.dispersion_transform())
    expected = torch.nn.functional.conv2d(x, kernel, conv.bias, stride=2, padding=4, dilation=2)
    torch.testing.assert_close(actual, expected)


def draw(method, pipe, seeds, steps=3, size=(64, 64)):
    prompts = [f"prompt {seed}" for seed in seeds]
    return method.generate(pipe, Request(prompts, seeds, *size, Sampler(steps=steps, guidance_scale=4.0)))


def test_sampler_noise_comes_from_the_image_generator(pipe):
    request = Request(["a", "b"], [4, 5], 64, 64, Sampler(steps=2, guidance_scale=4.0, eta=1.0))
    torch.manual_seed(1)
    first = Direct().generate(pipe, request)
    torch.manual_seed(2)
    assert np.array_equal(first, Direct().generate(pipe, request))


@pytest.mark.parametrize(
    "change",
    [
        {"tau": 0},
        {"progressive": True},
        {"dilation": {"mid_block": 4}},
        {"dilation": dict.fromkeys(TABLE, [2, 1])},
        {"noise_damped_tau": 0},
        {"noise_damped_dilation": {}},
        {"dispersed": ["mid_block"]},
        {"dispersed_tau": 0},
        {"dispersed_size": 7},
        {"dispersion_eta": 1.0},
        {"freeu": {"b1": 1.2, "b2": 1.4, "s1": 0.9, "s2": 0.2}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_option_changes_the_picture(pipe, change):
    full = Settings(
        TABLE,
        tau=50,
        noise_damped_dilation={"conv_in": 2},
        noise_damped_tau=50,
        dispersed=tuple(TABLE),
        dispersed_tau=50,
    )
    if "dilation" in change:
        full = replace(full, dispersed=())
    base = draw(ScaleCrafter(full), pipe, [1])
    assert np.array_equal(draw(ScaleCrafter(full, dict.fromkeys(change)), pipe, [1]), base)
    assert not np.array_equal(draw(ScaleCrafter(full, change), pipe, [1]), base)


def test_the_progress_bar_setting_is_restored(pipe):
    draw(Direct(), pipe, [1], steps=1)
    assert not hasattr(pipe, "_progress_bar_config")


@pytest.mark.parametrize(
    ("size", "message"),
    [((60, 64), "divisible by 32.*nearest size is 64x64"), ((32, 0), "below the training size"), ((0, 64), "below")],
)
def test_sizes_that_do_not_fit(pipe, size, message):
    before = snapshot(pipe)
    with pytest.raises(ValueError, match=message):
        scalecrafter.enable(pipe, height=size[0], width=size[1], settings=ACTIVE)
    assert same(before, snapshot(pipe))


def test_pipelines_and_settings_that_do_not_fit(pipe):
    with pytest.raises(ValueError, match="has a transformer"):
        scalecrafter.enable(SimpleNamespace(transformer=object()), height=64, width=64)
    with pytest.raises(ValueError, match="no settings 'nope': choose from auto"):
        scalecrafter.enable(pipe, height=64, width=64, settings="nope")
    with pytest.raises(ValueError, match="no 3x3 convolution"):
        scalecrafter.enable(pipe, height=64, width=64, settings=Settings({"conv_inn": 2}, tau=5))
    with scalecrafter.enable(pipe, height=64, width=64, settings=ACTIVE):
        before = snapshot(pipe)
        with pytest.raises(ValueError, match="already enabled"):
            scalecrafter.enable(pipe, height=64, width=64, settings=ACTIVE)
        assert same(before, snapshot(pipe))
