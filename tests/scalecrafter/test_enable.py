"""`enable` on real pipelines: it acts only when and where it should, and restores everything."""

import copy
import gc
from contextlib import contextmanager
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
from tests.scalecrafter.restoring import ACTIVE, TABLE, Stubborn, same, snapshot
from tests.tiny import generate, predict


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


def test_outside_the_windows_no_layer_is_looked_for(pipe, monkeypatch):
    """The last step is timestep 1. Looking for layers that adapters brought meanwhile takes as long as some layers."""
    looked_for = []
    with scalecrafter.enable(pipe, height=64, width=64, settings=replace(ACTIVE, tau=30)):
        monkeypatch.setattr(pipe.unet, "get_submodule", looked_for.append)
        predict(pipe, timestep=1)
        assert looked_for == []
        with pytest.raises(ValueError, match="is not a 3x3 convolution"):  # nothing is found that way
            predict(pipe, timestep=981)
        assert looked_for


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
    base, same, changed = (
        generate(ScaleCrafter(full, changes), pipe, [1], steps=1) for changes in ({}, dict.fromkeys(change), change)
    )
    assert np.array_equal(same, base)
    assert not np.array_equal(changed, base)


def test_settings_may_be_a_mapping_a_path_or_an_object(pipe, tmp_path):
    values = {"tau": 50, "dilation": {"mid_block": 2}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    for settings in (values, path, str(path), Settings(expand({"mid_block": 2}), tau=50)):
        with scalecrafter.enable(pipe, height=64, width=64, settings=settings) as handle:
            assert handle.settings == Settings(expand({"mid_block": 2}), tau=50)


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
