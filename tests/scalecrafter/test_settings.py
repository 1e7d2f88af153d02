"""Settings: what is shipped fits the models it is for, and what does not fit is refused."""

import json
import pickle
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from scalecrafter import FreeU, Settings, available_settings
from scalecrafter.convolutions import find_convolutions
from scalecrafter.settings import auto_settings, expand, load_settings
from tests.tiny import tiny_sdxl_unet, tiny_unet


@pytest.mark.parametrize("name", available_settings())
def test_every_shipped_name_exists_in_its_model(name):
    unet = tiny_sdxl_unet() if name.startswith("sdxl") else tiny_unet()
    settings = load_settings(name)
    for names in (settings.dilation, settings.noise_damped_dilation, settings.dispersed):
        assert set(find_convolutions(unet, names)) == set(names)
    assert settings.tau > 0


@pytest.mark.parametrize(
    ("name", "count", "d", "tau"),
    [
        ("sd15_x4", 39, 2, 30),
        ("sd15_x6_25", 39, 2.5, 35),
        ("sd21_x4", 39, 2, 20),
        ("sd21_x6_25", 39, 2.5, 30),
        ("sdxl_x4", 11, 2, 30),
        ("sdxl_x6_25", 11, 2.5, 30),
    ],
)
def test_the_papers_values(name, count, d, tau):
    settings = load_settings(name)
    assert len(settings.dilation) == count
    assert set(settings.dilation.values()) == {d}
    assert (settings.tau, settings.progressive) == (tau, False)


@pytest.mark.parametrize(
    ("name", "count", "damped_count", "tau", "damped_tau"),
    [
        ("sd15_x8", 39, 27, 35, 35),
        ("sd15_x16", 39, 27, 35, 35),
        ("sd21_x8", 39, 34, 37, 0),
        ("sd21_x16", 40, 34, 37, 37),
        ("sdxl_x8", 28, 11, 35, 35),
        ("sdxl_x16", 28, 11, 35, 35),
    ],
)
def test_the_papers_values_for_the_largest_sizes(name, count, damped_count, tau, damped_tau):
    settings = load_settings(name)
    assert (len(settings.dilation), len(settings.noise_damped_dilation)) == (count, damped_count)
    assert (settings.tau, settings.noise_damped_tau, settings.progressive) == (tau, damped_tau, True)
    assert set(settings.dilation.values()) <= {2, 3, 4}


@pytest.mark.parametrize(("family", "count"), [("sd15", 23), ("sd21", 23), ("sdxl", 15)])
def test_the_dispersed_variants_are_the_plain_ones_with_the_released_layers_dispersed(family, count):
    plain, dispersed = load_settings(f"{family}_x16"), load_settings(f"{family}_x16_disperse")
    assert len(dispersed.dispersed) == count
    assert dispersed.dispersed_tau == dispersed.tau
    assert replace(dispersed, dispersed=(), dispersed_tau=0) == plain


def test_groups_expand_to_full_names():
    assert expand({"mid_block": 2}) == {f"mid_block.resnets.{r}.conv{c}": 2 for r in (0, 1) for c in (1, 2)}
    assert len(expand({"up_blocks.0": 2})) == 6
    assert expand({"down_blocks.1+s": 3})["down_blocks.1.downsamplers.0.conv"] == 3
    assert expand({"conv_in": 2}) == {"conv_in": 2}


def fake_pipe(cross_attention_dim: int) -> SimpleNamespace:
    config = SimpleNamespace(sample_size=64, cross_attention_dim=cross_attention_dim, block_out_channels=(1, 1, 1, 1))
    return SimpleNamespace(unet=SimpleNamespace(config=config), vae_scale_factor=8)


def test_auto_takes_the_shipped_settings_at_their_size():
    assert auto_settings(fake_pipe(768), 1024, 1024) == load_settings("sd15_x4")
    assert auto_settings(fake_pipe(1024), 1280, 1280) == load_settings("sd21_x6_25")


def test_auto_scales_the_factors_with_the_side():
    """768x768 is 2.25 times the training area: sd15_x4's factor 2 times sqrt(2.25 / 4)."""
    settings = auto_settings(fake_pipe(768), 768, 768)
    assert set(settings.dilation.values()) == {1.5}
    assert settings.tau == 30


def test_auto_scales_the_base_pass_too():
    """1792x1792 is 12.25 times the training area: the factors of sd15_x16 times 3.5 / 4."""
    settings, shipped = auto_settings(fake_pipe(768), 1792, 1792), load_settings("sd15_x16")
    assert settings.noise_damped_dilation == {k: round(d * 0.875, 2) for k, d in shipped.noise_damped_dilation.items()}
    assert settings.noise_damped_tau == 35


def test_auto_leaves_the_training_size_alone():
    assert not auto_settings(fake_pipe(768), 512, 512).dilation


def test_auto_refuses_an_unknown_model():
    with pytest.raises(ValueError, match="no settings are known"):
        auto_settings(fake_pipe(999), 1024, 1024)


def test_yaml_round_trip(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("tau: 12\nprogressive: true\ndilation:\n  mid_block: 3\n")
    settings = load_settings(str(path))
    assert settings == Settings(expand({"mid_block": 3}), tau=12, progressive=True)


def test_plain_values_give_the_same_settings_back():
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
    assert Settings.from_mapping(plain) == settings
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_groups_may_be_dispersed():
    settings = Settings.from_mapping(
        {"dilation": {"mid_block": 2, "up_blocks.0+s": 4}, "dispersed": ["up_blocks.0+s"]}
    )
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
        ({"noise_damped_tau": True}, "noise_damped_tau counts"),
        ({"dispersed_tau": -1}, "dispersed_tau counts"),
        ({"dispersed_size": 4}, "odd and above 3"),
        ({"dispersion_eta": -0.1}, "at least 0"),
        ({"freeu": {"b1": 1}}, "freeu has b1"),
        ({"freeu": {"b1": 1, "b2": 1, "s1": 1, "s2": 1, "form": "mine"}}, "freeu.form is one of"),
        ({"freeu": {"b1": -1, "b2": 1, "s1": 1, "s2": 1}}, "freeu.b1"),
        ({"dilatoin": {}}, "unknown settings dilatoin"),
    ],
)
def test_settings_that_make_no_sense(values, message):
    with pytest.raises(ValueError, match=message):
        Settings.from_mapping(values)


def test_an_unknown_name_lists_what_exists():
    with pytest.raises(ValueError, match="sd15_x4.*scenes_x16|scenes_x16.*sd15_x4"):
        load_settings("sd15_x5")


def test_an_unknown_module_is_named_with_its_nearest():
    with pytest.raises(ValueError, match=r"mid_block.resnets.7.conv1.*did you mean mid_block.resnets"):
        find_convolutions(tiny_unet(), {"mid_block.resnets.7.conv1": 2})
    with pytest.raises(ValueError, match="no 3x3 convolution"):
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


@pytest.mark.parametrize("settings", [*map(Settings.from_mapping, NOTHING + SOMETHING), *available_settings()])
def test_effective_settings_do_the_same_in_every_call(settings):
    settings = settings if isinstance(settings, Settings) else load_settings(settings)
    effective = settings.effective()
    for step in range(51):
        for base_pass in (False, True):
            assert effective.at(step, base_pass=base_pass) == settings.at(step, base_pass=base_pass)
    assert effective.noise_damped_tau == settings.noise_damped_tau
    assert effective.effective() == effective


def test_settings_that_do_nothing_are_effectively_none():
    assert [Settings.from_mapping(values).effective() for values in NOTHING] == [Settings()] * len(NOTHING)
    assert Settings() not in [Settings.from_mapping(values).effective() for values in SOMETHING]
