"""ScaleCrafter's parts as switches."""

from dataclasses import fields, replace

import pytest
import torch

from experiments.demo.parts import Parts, changes_for, inner, parts_of
from scalecrafter import Settings, available_settings
from tests.tiny import tiny_unet

OFF = Parts(redilation=False)


def switched(settings, parts):
    return settings.changed(changes_for(settings, parts, levels=4))


@pytest.mark.parametrize("name", available_settings())
def test_usual_parts_change_nothing(name):
    settings = Settings.load(name)
    assert switched(settings, parts_of(settings)) == settings


def test_parts_are_those_of_the_paper():
    """At four times the area re-dilation that ends; noise damping besides at sixteen."""
    assert parts_of(Settings.load("sd15_x4")) == Parts()
    assert parts_of(Settings.load("sd15_x16")) == Parts(noise_damping=True)
    assert parts_of(Settings()) == OFF


@pytest.mark.parametrize("name", ["sd15_x4", "sd15_x16", "sd21_x6_25"])
@pytest.mark.parametrize("part", [field.name for field in fields(Parts)][1:])
def test_each_part_is_switched_alone(name, part):
    settings = Settings.load(name)
    wanted = replace(parts_of(settings), **{part: not getattr(parts_of(settings), part)})
    assert parts_of(switched(settings, wanted)) == wanted


def test_without_redilation_nothing_is_left():
    everything = Parts(True, False, True, True)
    settings = switched(Settings.load("sd15_x16"), everything)
    assert parts_of(settings) == everything
    assert switched(settings, replace(everything, redilation=False)).effective() == Settings()


def test_a_part_that_is_added_acts_on_the_inner_layers():
    """Those that the paper's base pass dilates: without the outermost level of the dilated ones."""
    settings = Settings.load("sd15_x16")
    assert set(inner(settings.dilation, 4)) == set(settings.noise_damped_dilation)
    settings = Settings.load("sd21_x16")
    assert set(inner(settings.dilation, 4)) == set(settings.noise_damped_dilation)
    added = switched(Settings.load("sd15_x4"), Parts(dispersion=True, noise_damping=True))
    assert set(added.dispersed) == set(added.noise_damped_dilation)
    assert {name.split(".resnets")[0] for name in added.dispersed if "resnets" in name} == {
        *("down_blocks.2", "down_blocks.3", "mid_block", "up_blocks.0", "up_blocks.1")
    }
    assert added.dispersed_tau == added.noise_damped_tau == added.tau == 30


def test_levels_are_those_of_the_feature_maps():
    """The maps that the resnets' convolutions see in a U-Net of four levels are halved from level to level."""
    unet, sides = tiny_unet(), {}
    names = [name for name in Settings.load("sd21_x16").dilation if "resnets" in name]
    for name in names:
        unet.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: sides.update({name: args[0].shape[-1]})
        )
    with torch.no_grad():
        unet(torch.zeros(1, 4, 32, 32), 1, torch.zeros(1, 3, 16))
    outer = {name for name, side in sides.items() if side == 32}
    assert set(names) - set(inner(names, 4)) == outer
    assert outer
