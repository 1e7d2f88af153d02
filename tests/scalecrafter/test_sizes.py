"""Settings for sizes: given with `enable`, or following each call."""

import copy
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionPipeline

import scalecrafter
from scalecrafter import Settings
from scalecrafter.settings import expand
from tests.scalecrafter.restoring import ACTIVE, TABLE, Stubborn, same, snapshot
from tests.tiny import unet_inputs


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
    copied = StableDiffusionPipeline.from_pretrained(save_pipeline("sd15"))
    before = snapshot(pipe)
    with scalecrafter.enable(pipe) as handle, torch.no_grad():
        for height, width in ((32, 32), (40, 36), (64, 64), (128, 128), (16, 48), (64, 64)):
            found = at_size(pipe, height, width)
            settings = scalecrafter.auto_settings(pipe, height, width)
            assert handle.settings == settings
            assert scalecrafter.active(pipe) == settings
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
