"""`enable` on real pipelines: it acts only when and where it should, and restores everything."""

import copy
import gc
import itertools
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline

import scalecrafter
from baselines.scalecrafter import ScaleCrafter
from scalecrafter import Settings
from scalecrafter.patching import replaced_attribute
from scalecrafter.settings import expand
from tests.tiny import generate, predict, unet_inputs

TABLE = expand({"down_blocks.1+s": 2, "mid_block": 2, "up_blocks.1+s": 1.5})
ACTIVE = Settings(TABLE, tau=50)


def snapshot(pipe):
    """Everything that could change about each module: own attributes, hooks and parameters."""
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


def test_pipeline_is_restored_bit_for_bit(pipe):
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


def test_a_pipeline_whose_handle_is_lost_can_be_restored(pipe):
    before = snapshot(pipe)
    assert scalecrafter.active(pipe) is None
    scalecrafter.disable(pipe)
    scalecrafter.enable(pipe, height=64, width=64, settings=ACTIVE)  # nobody keeps the handle
    gc.collect()
    shared = StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
    assert scalecrafter.active(shared) == ACTIVE
    with pytest.raises(ValueError, match=r"already enabled on this pipeline: call scalecrafter\.disable"):
        scalecrafter.enable(shared, height=64, width=64, settings=ACTIVE)
    scalecrafter.disable(shared)
    assert scalecrafter.active(pipe) is None
    assert same(before, snapshot(pipe))
    with scalecrafter.enable(pipe, height=64, width=64, settings=ACTIVE):
        assert scalecrafter.active(pipe) == ACTIVE


def test_dispersed_kernels_follow_their_weights(pipe):
    """Fusing and unfusing LoRA adds to a weight's data in place, which its version does not count."""
    settings = replace(ACTIVE, dispersed=("mid_block.resnets.0.conv1",), dispersed_tau=50)
    conv = pipe.unet.mid_block.resnets[0].conv1
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        before = predict(pipe)
        conv.weight.data += 0.1
        fused = predict(pipe)
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        assert torch.equal(predict(pipe), fused)
    assert not torch.allclose(fused, before)


def test_a_deep_copy_of_an_enabled_model_is_a_plain_one(pipe, monkeypatch):
    """It neither follows the method nor takes the pipeline along."""
    plain = predict(pipe)
    settings = replace(ACTIVE, dispersed=("mid_block.resnets.0.conv1",), dispersed_tau=50)
    settings = replace(settings, freeu=scalecrafter.FreeU(1.2, 1.4, 0.9, 0.2))
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        monkeypatch.setattr(type(pipe), "__deepcopy__", None, raising=False)  # would be called
        copied = SimpleNamespace(unet=copy.deepcopy(pipe.unet), scheduler=pipe.scheduler, vae_scale_factor=4)
        enabled = predict(pipe)
        assert torch.equal(predict(copied), plain)
    assert torch.equal(predict(copied), plain)
    with scalecrafter.enable(copied, height=64, width=64, settings=settings):
        assert torch.equal(predict(copied), enabled)
        assert torch.equal(predict(pipe), plain)
    assert torch.equal(predict(copied), plain)


def test_pipeline_is_restored_after_errors(pipe, monkeypatch):
    before = snapshot(pipe)
    with pytest.raises(RuntimeError, match="stop"), scalecrafter.enable(pipe, height=64, width=64, settings=ACTIVE):
        raise RuntimeError("stop")
    assert same(before, snapshot(pipe))
    with monkeypatch.context() as patch:
        patch.setattr("scalecrafter.layers.FollowingConvolution", None)
        with pytest.raises(TypeError, match="not callable"):
            scalecrafter.enable(pipe, height=64, width=64, settings=ACTIVE)
    assert same(before, snapshot(pipe))
    scalecrafter.enable(pipe, height=64, width=64, settings=ACTIVE).disable()


class Stubborn(torch.nn.Conv2d):
    """A convolution whose own forward cannot be replaced."""

    def __setattr__(self, name, value):
        if name == "_conv_forward":
            raise TypeError("this convolution cannot be patched")
        super().__setattr__(name, value)


@pytest.mark.parametrize("given", [True, False], ids=["one size", "any size"])
def test_nothing_is_left_of_a_patch_that_fails(pipe, given):
    """The last of many, after the hooks and all other patches."""
    everything = replace(ACTIVE, freeu=scalecrafter.FreeU(1.2, 1.4, 0.9, 0.2), noise_damped_tau=50)
    pipe.unet.get_submodule(list(TABLE)[-1]).__class__ = Stubborn
    before, output = snapshot(pipe), predict(pipe)
    with pytest.raises(TypeError, match="cannot be patched"):
        scalecrafter.enable(pipe, settings=everything, **({"height": 64, "width": 64} if given else {}))
    assert same(before, snapshot(pipe))
    assert scalecrafter.active(pipe) is None
    assert torch.equal(predict(pipe), output)


def test_a_patch_that_fails_when_the_size_changes_leaves_no_half_of_it(pipe, monkeypatch):
    """Settings for a new size need more layers, one of which cannot be patched: other sizes go on as before."""
    tables = {64: Settings({"conv_in": 2}, tau=50), 96: replace(ACTIVE, dilation=TABLE | {"conv_in": 3})}
    chosen = sys.modules["scalecrafter.enable"]  # the function has the module's name
    monkeypatch.setattr(chosen, "auto_settings", lambda pipe, height, width: tables[height])
    before, plain = snapshot(pipe), at_size(pipe, 96, 96)
    with scalecrafter.enable(pipe, settings="auto"):
        expected = at_size(pipe, 64, 64)
        pipe.unet.get_submodule(list(TABLE)[-1]).__class__ = Stubborn
        with pytest.raises(TypeError, match="cannot be patched"):
            at_size(pipe, 96, 96)
        assert torch.equal(at_size(pipe, 64, 64), expected)
        pipe.unet.get_submodule(list(TABLE)[-1]).__class__ = torch.nn.Conv2d
        found = at_size(pipe, 96, 96)
    assert torch.equal(found, at_size(pipe, 96, 96, tables[96]))
    assert not torch.equal(found, plain)
    assert same(before, snapshot(pipe))


def test_changes_are_undone_in_reverse_order(pipe, monkeypatch):
    """What was patched last is restored first, so that patches may lie on each other."""
    events = []

    @contextmanager
    def recorded(obj, name, value):
        with replaced_attribute(obj, name, value):
            events.append(("patch", obj))
            yield
        events.append(("restore", obj))

    monkeypatch.setattr("scalecrafter.layers.replaced_attribute", recorded)
    scalecrafter.enable(pipe, height=64, width=64, settings=ACTIVE).disable()
    patched, restored = ([obj for kind, obj in events if kind == which] for which in ("patch", "restore"))
    assert len(patched) == len(TABLE)
    assert restored == patched[::-1]


def test_factor_one_everywhere_equals_direct_exactly(pipe):
    output = predict(pipe)
    ones = Settings(dict.fromkeys(TABLE, 1), tau=50)
    with scalecrafter.enable(pipe, height=64, width=64, settings=ones):
        assert torch.equal(predict(pipe), output)


@pytest.mark.parametrize("timestep", [float, torch.tensor, lambda t: torch.tensor([t, t])])
def test_window_follows_the_timestep(pipe, timestep):
    """tau = 20 is reached between t = 601 and t = 600, in whatever order the timesteps come."""
    with scalecrafter.enable(pipe, height=64, width=64, settings=Settings(TABLE, tau=20)):
        dilated = {t: predict(pipe, timestep(t)) for t in (600, 601, 1, 999, 300)}
    changed = {t for t, output in dilated.items() if not torch.equal(output, predict(pipe, timestep(t)))}
    assert changed == {601, 999}


@torch.no_grad()
def inside(pipe, timestep, function):
    """What ``function()`` returns within a call of the U-Net."""
    returned = []
    with pipe.unet.conv_out.register_forward_pre_hook(lambda module, args: returned.append(function())):
        predict(pipe, timestep)
    return returned[0]


def positions(response):
    """Where the (N, C, H, W) response to an impulse is not zero."""
    return {tuple(position) for position in response[0, 0].abs().gt(1e-6).nonzero().tolist()}


@pytest.mark.parametrize(("d", "rows", "columns"), [(3, (1, 4, 7), (1, 4, 7)), ((3, 2), (1, 4, 7), (2, 4, 6))])
def test_only_named_layers_are_dilated_by_their_factors(pipe, d, rows, columns):
    """An impulse through the named convolution spreads by its factors; its neighbour is unchanged."""
    first, second = pipe.unet.mid_block.resnets[0].conv1, pipe.unet.mid_block.resnets[0].conv2
    x = torch.zeros(1, 16, 9, 9)
    x[:, :, 4, 4] = 1
    settings = Settings({"mid_block.resnets.0.conv1": d}, tau=50)
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        responses = inside(pipe, 500, lambda: [conv(x) - conv.bias.view(1, -1, 1, 1) for conv in (first, second)])
    assert positions(responses[0]) == set(itertools.product(rows, columns))
    assert positions(responses[1]) == set(itertools.product((3, 4, 5), (3, 4, 5)))


@pytest.mark.parametrize(("d", "step", "radius", "taps"), [(4, 0, 4, 5), (2, 0, 2, 5), (3, 0, 4, None), (4, 30, 4, 3)])
def test_dispersed_layer_spans_what_its_dilation_spanned(pipe, d, step, radius, taps):
    """5x5 taps d / 2 apart; 3 leaves 1.5, which interpolates and spans slightly more. From dispersed_tau = 20 on it is
    the 3x3 kernel with factor d.
    """
    name = "mid_block.resnets.0.conv1"
    conv = pipe.unet.get_submodule(name)
    x = torch.zeros(1, 16, 17, 17)
    x[:, :, 8, 8] = 1
    settings = Settings({name: d}, tau=50, dispersed=(name,), dispersed_tau=20)
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        response = inside(pipe, 999 - 20 * step, lambda: conv(x) - conv.bias.view(1, -1, 1, 1))
    rows = response[0, 0].abs().gt(1e-6).any(1).nonzero().flatten().tolist()
    assert (min(rows), max(rows)) == (8 - radius, 8 + radius)
    assert taps is None or len(rows) == taps


def test_dispersed_layer_convolves_with_the_dispersed_kernel(pipe):
    name = "down_blocks.1.downsamplers.0.conv"  # stride 2
    conv = pipe.unet.get_submodule(name)
    x = torch.randn(1, 16, 11, 10, generator=torch.Generator().manual_seed(0))
    settings = Settings({name: 4}, tau=50, dispersed=(name,), dispersed_tau=50)
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        actual = inside(pipe, 500, lambda: conv(x))
    kernel = scalecrafter.disperse_kernel(conv.weight, scalecrafter.dispersion_transform())
    expected = torch.nn.functional.conv2d(x, kernel, conv.bias, stride=2, padding=4, dilation=2)
    torch.testing.assert_close(actual, expected)


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
def test_every_option_changes_the_image(pipe, change):
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
    base = generate(ScaleCrafter(full), pipe, [1])
    assert np.array_equal(generate(ScaleCrafter(full, dict.fromkeys(change)), pipe, [1]), base)
    assert not np.array_equal(generate(ScaleCrafter(full, change), pipe, [1]), base)


def test_settings_may_be_a_mapping_a_path_or_an_object(pipe, tmp_path):
    values = {"tau": 50, "dilation": {"mid_block": 2}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    for settings in (values, path, str(path), Settings(expand({"mid_block": 2}), tau=50)):
        with scalecrafter.enable(pipe, height=64, width=64, settings=settings) as handle:
            assert handle.settings == Settings(expand({"mid_block": 2}), tau=50)


def test_invalid_sizes_raise_and_change_nothing(pipe):
    before = snapshot(pipe)
    for height, width, message in (
        (62, 64, "divisible by 4.*nearest size is 64x64"),
        (64, 0, "divisible by 4.*nearest size is 64x4"),
        (64, None, "height and width are given together"),
    ):
        with pytest.raises(ValueError, match=message):
            scalecrafter.enable(pipe, height=height, width=width, settings=ACTIVE)
    with pytest.raises(ValueError, match="no settings for this model"):
        scalecrafter.enable(pipe)
    with pytest.raises(ValueError, match="not a 3x3 convolution"):
        scalecrafter.enable(pipe, settings={"dilation": {"conv_inn": 2}, "tau": 5})
    assert same(before, snapshot(pipe))


def at_size(pipe, height, width, settings=None, given=None):
    """The U-Net's prediction for images of this size in pixels, with the method, enabled for the ``given`` size, if
    there are settings.
    """
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(2, 4, height // 4, width // 4, generator=generator)
    inputs = unet_inputs(pipe) | {"sample": sample}
    size = dict(zip(("height", "width"), given or (height, width), strict=True))
    enabled = nullcontext() if settings is None else scalecrafter.enable(pipe, settings=settings, **size)
    with enabled, torch.no_grad():
        return pipe.unet(timestep=999, **inputs).sample


def test_a_call_at_another_size_than_the_given_one_raises(pipe):
    before = snapshot(pipe)
    with pytest.raises(ValueError, match="enabled for 64x96.*called at 64x64"):
        at_size(pipe, 64, 64, ACTIVE, given=(64, 96))
    assert same(before, snapshot(pipe))


def test_without_a_size_every_call_gets_the_settings_for_its_own(save_pipeline):
    """At the training size, just above it, where nothing is dilated either, far above, wide, and back again."""
    pipe = StableDiffusionPipeline.from_pretrained(save_pipeline("sd15"))
    before = snapshot(pipe)
    with scalecrafter.enable(pipe) as handle, torch.no_grad():
        for height, width in ((32, 32), (40, 36), (64, 64), (128, 128), (16, 48), (64, 64)):
            found = at_size(pipe, height, width)
            settings = scalecrafter.auto_settings(pipe, height, width)
            assert handle.settings == settings
            assert scalecrafter.active(pipe) == settings
            copied = StableDiffusionPipeline.from_pretrained(save_pipeline("sd15"))
            assert torch.equal(found, at_size(copied, height, width, settings))
            assert torch.equal(found, at_size(copied, height, width)) == (settings == Settings())
    assert same(before, snapshot(pipe))


def test_given_settings_without_a_size_act_above_the_training_area_only(pipe):
    expected = at_size(pipe, 64, 64, ACTIVE)
    with scalecrafter.enable(pipe, settings=ACTIVE), torch.no_grad():
        small, large = at_size(pipe, 32, 32), at_size(pipe, 64, 64)
    assert torch.equal(small, at_size(pipe, 32, 32))
    assert torch.equal(large, expected)


@pytest.mark.parametrize("size", [(60, 68), (36, 100), (44, 44)])
def test_sides_need_not_be_divisible_at_every_level(pipe, size):
    """Against a copy whose convolutions are dilated by torch."""
    height, width = size
    dilated = copy.deepcopy(pipe.unet)
    for name, factor in expand({"down_blocks.1+s": 2, "mid_block": 3, "up_blocks.1+s": 2}).items():
        conv = dilated.get_submodule(name)
        conv.dilation, conv.padding = (factor, factor), (factor, factor)
    settings = Settings(expand({"down_blocks.1+s": 2, "mid_block": 3, "up_blocks.1+s": 2}), tau=50)
    expected = at_size(SimpleNamespace(unet=dilated), height, width)
    found = at_size(pipe, height, width, settings)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_invalid_pipelines_and_settings_raise(pipe):
    with pytest.raises(ValueError, match="has a transformer"):
        scalecrafter.enable(SimpleNamespace(transformer=object()), height=64, width=64)
    with pytest.raises(ValueError, match="no settings 'nope': choose from auto"):
        scalecrafter.enable(pipe, height=64, width=64, settings="nope")
    with pytest.raises(ValueError, match="not a 3x3 convolution"):
        scalecrafter.enable(pipe, height=64, width=64, settings=Settings({"conv_inn": 2}, tau=5))
    with scalecrafter.enable(pipe, height=64, width=64, settings=ACTIVE):
        before = snapshot(pipe)
        with pytest.raises(ValueError, match="already enabled"):
            scalecrafter.enable(pipe, height=64, width=64, settings=ACTIVE)
        assert same(before, snapshot(pipe))
