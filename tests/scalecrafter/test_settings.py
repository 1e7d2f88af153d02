"""Settings: what is shipped fits the models it is for, and what does not fit is refused."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel

from scalecrafter import Settings, available_settings
from scalecrafter.enable import find_convolutions
from scalecrafter.settings import auto_settings, expand, load_settings
from tests.tiny import tiny_unet


def sdxl_unet() -> UNet2DConditionModel:
    """SDXL's topology: three levels, attention at the two deeper ones."""
    return UNet2DConditionModel(
        sample_size=16,
        layers_per_block=2,
        block_out_channels=(4, 8, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
    )


@pytest.mark.parametrize("name", available_settings())
def test_every_shipped_name_exists_in_its_model(name):
    unet = sdxl_unet() if name.startswith("sdxl") else tiny_unet()
    settings = load_settings(name)
    assert set(find_convolutions(unet, settings.dilation)) == set(settings.dilation)
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
    assert Settings.from_mapping(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tau": 51}, "0 to 50"),
        ({"tau": 2.5}, "0 to 50"),
        ({"dilation": {"conv_in": 0.5}}, "at least 1"),
        ({"dilation": {"conv_in": "two"}}, "at least 1"),
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
