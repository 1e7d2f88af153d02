"""LoRA on attention and convolutions: the method acts on the adapted model as on the merged one."""

import copy
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig

import scalecrafter
from scalecrafter import Settings
from scalecrafter.settings import expand
from tests.tiny import PIPELINES, predict

TABLE = expand({"mid_block": 4, "up_blocks.0+s": 1.5, "down_blocks.1+s": 2})
SETTINGS = Settings(
    TABLE,
    tau=50,
    noise_damped_dilation=expand({"mid_block": 2}),
    noise_damped_tau=50,
    dispersed=tuple(expand({"mid_block": 1, "down_blocks.1+s": 1})),
    dispersed_tau=50,
)


@pytest.fixture(params=PIPELINES)
def pipe(request, tmp_path):
    """A fresh tiny pipeline of each architecture."""
    return PIPELINES[request.param](tmp_path)


CONVOLUTIONS, ATTENTION = ["conv1", "conv2", "conv"], ["to_q", "to_v"]


def add_lora(pipe, targets, seed=0, name="default", **options):
    torch.manual_seed(seed)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=targets, init_lora_weights=False, **options)
    pipe.unet.add_adapter(config, name)


def enabled(pipe):
    with scalecrafter.enable(pipe, height=64, width=64, settings=SETTINGS):
        return predict(pipe)


@pytest.mark.parametrize("targets", [CONVOLUTIONS, ATTENTION], ids=["convolutions", "attention"])
def test_adapted_equals_merged(pipe, targets):
    without = enabled(pipe)
    add_lora(pipe, targets)
    adapted, plain = enabled(pipe), predict(pipe)
    pipe.unet.fuse_lora()
    pipe.unet.unload_lora()
    torch.testing.assert_close(adapted, enabled(pipe), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(adapted, without, atol=1e-3)
    assert not torch.allclose(adapted, plain, atol=1e-3)


def test_disabled_adapter_stays_disabled(pipe):
    without = enabled(pipe)
    add_lora(pipe, CONVOLUTIONS)
    pipe.unet.disable_adapters()
    torch.testing.assert_close(enabled(pipe), without)


def test_adapted_model_is_restored(pipe):
    add_lora(pipe, CONVOLUTIONS)
    before = predict(pipe)
    enabled(pipe)
    assert torch.equal(predict(pipe), before)


def test_other_adapters_of_convolutions_raise(pipe):
    add_lora(pipe, ["conv1"], use_dora=True)
    with pytest.raises(ValueError, match=r"not plain LoRA.*fuse it"):
        scalecrafter.enable(pipe, height=64, width=64, settings=SETTINGS)


def explicit(pipe):
    """The prediction of a copy of what the U-Net is now, with the method enabled on the copy afterwards."""
    copied = SimpleNamespace(unet=copy.deepcopy(pipe.unet), scheduler=pipe.scheduler, vae_scale_factor=4)
    return enabled(copied)


@pytest.mark.parametrize("pipe", ["sd"], indirect=True)
def test_adapters_that_change_while_enabled_are_followed(pipe):
    steps = {
        "load": lambda: add_lora(pipe, CONVOLUTIONS),
        "scale": lambda: pipe.unet.set_adapters(["default"], weights=[0.5]),
        "fuse": pipe.unet.fuse_lora,
        "unfuse": pipe.unet.unfuse_lora,
        "load another": lambda: add_lora(pipe, CONVOLUTIONS, seed=1, name="another"),
        "delete": lambda: pipe.unet.delete_adapters(["default"]),
        "fuse again": pipe.unet.fuse_lora,
        "unload": pipe.unet.unload_lora,
    }
    plain, seen = predict(pipe), []
    with scalecrafter.enable(pipe, height=64, width=64, settings=SETTINGS):
        for name, change in steps.items():
            change()
            found = predict(pipe)
            assert torch.equal(found, explicit(pipe)), name
            seen.append(found)
    assert not torch.allclose(seen[0], seen[1], atol=1e-4)
    assert not torch.allclose(seen[-1], plain, atol=1e-3)
    copied = SimpleNamespace(unet=copy.deepcopy(pipe.unet))
    assert torch.equal(predict(pipe), predict(copied))
    assert not any("_conv_forward" in vars(module) for module in pipe.unet.modules())


@pytest.mark.parametrize("pipe", ["sd"], indirect=True)
def test_other_adapters_loaded_while_enabled_raise_in_the_next_call(pipe):
    with scalecrafter.enable(pipe, height=64, width=64, settings=SETTINGS):
        predict(pipe)
        add_lora(pipe, ["conv1"], use_dora=True)
        with pytest.raises(ValueError, match=r"not plain LoRA.*fuse it"):
            predict(pipe)
        pipe.unet.unload_lora()
        predict(pipe)
