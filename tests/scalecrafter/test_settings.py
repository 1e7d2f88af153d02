"""Settings: the shipped ones are the released ones and fit their models, and invalid ones raise."""

import itertools
import json
import pickle
from pathlib import Path

import pytest
import torch

from scalecrafter import FreeU, Settings, available_settings
from scalecrafter.convolutions import find_convolutions
from scalecrafter.settings import expand
from tests.tiny import tiny_sdxl_unet, tiny_unet

RELEASED = json.loads(Path(__file__).with_name("released_settings.json").read_text(encoding="utf-8"))["settings"]


def test_shipped_settings_are_the_released_ones():
    assert {name: Settings.load(name).to_dict() for name in available_settings()} == RELEASED


def test_the_method_acts_in_the_steps_that_it_changes():
    for name in available_settings():
        settings = Settings.load(name)
        for step in range(50):
            changed = [settings.at(step, base_pass=base)[0] for base in (False, True)]
            assert settings.acts_at(step) == any(changed), (name, step)
    assert Settings(freeu=FreeU(1.2, 1.4, 0.9, 0.2)).acts_at(49)
    assert not Settings().acts_at(0)


def test_shipped_names_exist_in_their_models():
    unets = {"sd15": tiny_unet(), "sd21": tiny_unet(), "sdxl": tiny_sdxl_unet()}
    for name in available_settings():
        settings = Settings.load(name)
        for names in (settings.dilation, settings.noise_damped_dilation, settings.dispersed):
            assert set(find_convolutions(unets[name.partition("_")[0]], names)) == set(names)


def test_groups_expand_to_full_names():
    assert expand({"mid_block": 2}) == {f"mid_block.resnets.{r}.conv{c}": 2 for r in (0, 1) for c in (1, 2)}
    assert len(expand({"up_blocks.0": 2})) == 6
    assert expand({"down_blocks.1+s": 3})["down_blocks.1.downsamplers.0.conv"] == 3
    assert expand({"conv_in": 2}) == {"conv_in": 2}


def test_load_accepts_a_path_a_mapping_and_an_empty_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("tau: 12\nprogressive: true\ndilation:\n  mid_block: 3\n")
    values = {"tau": 12, "progressive": True, "dilation": {"mid_block": 3}}
    for source in (path, str(path), values):
        assert Settings.load(source) == Settings(expand({"mid_block": 3}), tau=12, progressive=True)
    path.write_text("")
    assert Settings.load(path) == Settings()


def test_errors_in_a_file_name_it(tmp_path):
    path = tmp_path / "mine.yaml"
    for text, message in (("- 1", "settings are a mapping"), ("tau: 99", "0 to 50"), ("tau: [", "parsing")):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"mine.yaml: .*{message}"):
            Settings.load(path)


def test_plain_values_and_pickles_round_trip():
    settings = Settings(
        {"conv_in": (2, 3), "conv_out": 1.5},
        tau=12,
        progressive=True,
        noise_damped_dilation={"conv_in": 2},
        noise_damped_tau=7,
        dispersed=("conv_in",),
        dispersed_tau=8,
        dispersed_size=7,
        dispersion_eta=0.1,
        freeu=FreeU(1.1, 1.2, 0.6, 0.4, "scalecrafter"),
    )
    plain = json.loads(json.dumps(settings.to_dict()))
    assert Settings.load(plain) == settings
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_groups_may_be_dispersed():
    settings = Settings.load({"dilation": {"mid_block": 2, "up_blocks.0+s": 4}, "dispersed": ["up_blocks.0+s"]})
    assert settings.dispersed == tuple(expand({"up_blocks.0+s": 4}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tau": 51}, "0 to 50"),
        ({"tau": 2.5}, "0 to 50"),
        ({"dilation": {"conv_in": 0.5}}, "at least 1"),
        ({"dilation": {"conv_in": "two"}}, "at least 1"),
        ({"dilation": {"conv_in": [2, 3, 4]}}, "or two of them"),
        ({"noise_damped_dilation": {"conv_in": [2, 0.5]}}, "at least 1"),
        ({"dispersed": ["conv_in"]}, "conv_in is dispersed but not dilated"),
        ({"dispersed": "conv_in"}, "list of names"),
        ({"dilation": [1]}, "must map names of convolutions to factors"),
        ({"noise_damped_tau": True}, "noise_damped_tau counts"),
        ({"dispersed_tau": -1}, "dispersed_tau counts"),
        ({"dispersed_size": 4}, "odd and above 3"),
        ({"dispersion_eta": -0.1}, "at least 0"),
        ({"freeu": {"b1": 1}}, "freeu has b1"),
        ({"freeu": {"b1": 1, "b2": 1, "s1": 1, "s2": 1, "form": "mine"}}, "freeu.form must be one of"),
        ({"freeu": {"b1": -1, "b2": 1, "s1": 1, "s2": 1}}, "freeu.b1"),
        ({"dilatoin": {}}, "unknown settings dilatoin"),
    ],
)
def test_invalid_settings_raise(values, message):
    with pytest.raises(ValueError, match=message):
        Settings.load(values)


def test_unknown_setting_lists_available_names():
    with pytest.raises(ValueError, match="no settings 'sd15_x5': choose from auto, sd15_x16, .* or a YAML file"):
        Settings.load("sd15_x5")


def test_unknown_module_suggests_the_nearest_names():
    with pytest.raises(ValueError, match=r"mid_block.resnets.7.conv1.*did you mean mid_block.resnets"):
        find_convolutions(tiny_unet(), {"mid_block.resnets.7.conv1": 2})
    with pytest.raises(ValueError, match="not a 3x3 convolution"):
        find_convolutions(torch.nn.ModuleDict({"a": torch.nn.Conv2d(1, 1, 1)}), {"a": 2})


NOTHING = [
    {"progressive": True},
    {"dilation": {"mid_block": 2}, "noise_damped_dilation": {"mid_block": 3}},
    {"dilation": {"mid_block": 1}, "tau": 30, "dispersed": ["mid_block"], "dispersed_tau": 30, "dispersed_size": 7},
    {"dispersed_size": 9, "dispersion_eta": 3.0},
    {"noise_damped_dilation": {"mid_block": 2}, "tau": 30},
]
SOMETHING = [
    {"dilation": {"mid_block": 2, "down_blocks.1": 1}, "tau": 30, "noise_damped_dilation": {"mid_block": 2}},
    {"dilation": {"mid_block": 3}, "tau": 30, "progressive": True, "dispersed": ["mid_block"], "dispersed_tau": 45},
    {"noise_damped_dilation": {"mid_block": 2}, "noise_damped_tau": 40, "dilation": {"up_blocks.0": 2}, "tau": 20},
    {"dilation": {"mid_block": [1, 2]}, "tau": 10, "dispersed": ["mid_block"], "dispersed_tau": 0},
]


def test_effective_settings_act_alike_in_every_call():
    for source in [*NOTHING, *SOMETHING, *available_settings()]:
        settings = Settings.load(source)
        effective = settings.effective()
        for step, base_pass in itertools.product(range(51), (False, True)):
            assert effective.at(step, base_pass=base_pass) == settings.at(step, base_pass=base_pass)
        assert effective.noise_damped_tau == settings.noise_damped_tau
        assert effective.effective() == effective


def test_settings_without_effect_equal_the_empty_ones():
    assert [Settings.load(values).effective() for values in NOTHING] == [Settings()] * len(NOTHING)
    assert Settings() not in [Settings.load(values).effective() for values in SOMETHING]
