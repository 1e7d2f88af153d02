"""Settings "auto": the shipped tables at their sizes, and one continuous, monotonic rule between and around them."""

import logging
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest

from scalecrafter import FreeU, Settings, auto_settings
from scalecrafter.auto import DEAD_BAND, settings_between, shipped_tables
from scalecrafter.redilate import per_axis

FAMILIES = {"sd15": (768, 64, 4), "sd21": (1024, 64, 4), "sdxl": (2048, 128, 3)}
SIDES = {"x4": [(2, 2)], "x6_25": [(2.5, 2.5)], "x8": [(2, 4), (4, 2)], "x16": [(4, 4)]}
INNER, OUTER = "mid_block.resnets.0.conv1", "down_blocks.1.resnets.0.conv1"


@cache
def fake_pipe(family):
    width, latent, levels = FAMILIES[family]
    config = SimpleNamespace(sample_size=latent, cross_attention_dim=width, block_out_channels=(1,) * levels)
    return SimpleNamespace(unet=SimpleNamespace(config=config), vae_scale_factor=8)


@cache
def tables_of(family):
    return shipped_tables(fake_pipe(family))


def auto(height, width, family="sd15"):
    """At a size in pixels, of which a shipped family's model was trained at 512x512 (SDXL at 1024x1024)."""
    return auto_settings(fake_pipe(family), height, width, tables_of(family))


def both(settings, name, step=0, base_pass=False):
    """(vertical, horizontal) factors of a layer at a step; (1, 1) where it is not dilated."""
    return per_axis(settings.at(step, base_pass=base_pass)[0].get(name, 1.0))


@pytest.mark.parametrize("family", FAMILIES)
def test_tables_are_used_as_they_are_at_their_sizes(family):
    trained = 8 * FAMILIES[family][1]
    for name, sides in SIDES.items():
        for height, width in sides:
            found = auto(round(height * trained), round(width * trained), family)
            assert found == Settings.load(f"{family}_{name}")
    assert auto_settings(fake_pipe(family), 4 * trained, 4 * trained) == Settings.load(f"{family}_x16")


@pytest.mark.parametrize(("height", "width"), [(512, 512), (576, 576), (640, 640), (640, 8), (256, 640), (8, 8)])
def test_nothing_is_dilated_within_the_dead_band(height, width):
    """Before, 576x576 dilated 39 layers by 1.12."""
    assert auto(height, width) == Settings()
    assert auto(height + 8, width + 8) == Settings() or max(height, width) + 8 > 512 * DEAD_BAND


@pytest.mark.parametrize("size", [(1344, 768), (832, 1216), (1536, 640), (896, 1152), (512, 2048)])
def test_sdxl_sizes_of_the_training_area_are_the_plain_model(size):
    assert auto(*size, "sdxl") == Settings()


def test_an_image_of_hardly_more_than_the_training_area_is_hardly_dilated():
    """As wide as three training images, and low: from the plain model at the training area on factors grow with it."""
    found = [both(auto(height, 1536), INNER)[1] for height in (168, 176, 256, 344)]
    areas = [height * 1536 / 512**2 for height in (168, 176, 256, 344)]
    assert areas[0] < 1
    assert areas[-1] > 2
    assert found == pytest.approx([1, 1 + 2 * (areas[1] - 1), 1 + 2 * (areas[2] - 1), 3], abs=1e-5)


def test_a_larger_image_does_not_start_with_smaller_factors():
    """Before, 1536x1536 and 1664x1664 started with factors of 3 to 5, and 1792x1792 and 2048x2048 with 2 to 4."""
    first = [both(auto(side, side), INNER)[0] for side in (1280, 1408, 1536, 1664, 1792, 2048)]
    assert first == [2.5, 2.75, 3.0, 3.25, 3.5, 4.0]


def test_factors_are_linear_in_the_longer_side():
    """Before, 1152x1152 had 2.25 everywhere, in the window of the smaller table, and 1408x1408 the 16x recipe."""
    settings = auto(1152, 1152)
    assert both(settings, OUTER) == (2.25, 2.25)
    assert both(settings, OUTER, step=32) == (1.75, 1.75)  # x4's window of 30 is over, x6_25's of 35 is not
    assert settings.tau == 35
    assert settings.noise_damped_tau == 0
    assert both(settings, OUTER, step=35) == (1, 1)


def test_progressive_rounding_is_the_tables_own():
    """At 1536x1536, a third of the way from 2.5 to 4: of 4, step 20 leaves ceil(4 (35 - 20) / 35) = 2."""
    settings = auto(1536, 1536)
    assert both(settings, INNER, step=20) == pytest.approx((7 / 3, 7 / 3), abs=1e-6)
    assert both(settings, INNER, step=34) == pytest.approx((7 / 3, 7 / 3), abs=1e-6)
    assert both(settings, OUTER)[0] == pytest.approx(2 / 3 * 2.5 + 1 / 3 * 2, abs=1e-6)  # the released tables shrink


@pytest.mark.parametrize("size", [(512, 2048), (512, 4096), (256, 1024)])
def test_an_axis_that_has_not_grown_is_not_dilated(size):
    for height, width in (size, size[::-1]):
        for vertical, horizontal in map(per_axis, auto(height, width).dilation.values()):
            grown, other = (vertical, horizontal) if height > width else (horizontal, vertical)
            assert grown >= 2
            assert other == 1


def test_an_axis_that_grows_gets_the_factor_by_and_by():
    """Three quarters of the excess at 1.75 times the trained height, which itself is that of 4 times the width."""
    assert both(auto(896, 2048), INNER) == (1 + 0.75 * 3, 4)
    assert both(auto(768, 768), INNER) == pytest.approx((1 + 1 / 3,) * 2, abs=1e-6)  # a third of the way to 2
    assert both(auto(640 + 64, 768), INNER)[0] == pytest.approx(1 + 0.75 / 3, abs=1e-6)


def test_beyond_the_largest_table_factors_grow_with_the_longer_side():
    assert both(auto(4096, 4096), INNER) == (8, 8)
    assert both(auto(2560, 1024), OUTER) == (2.5, 2.5)
    assert both(auto(4096, 512), INNER) == (8, 1)
    assert both(auto(4096, 4096), INNER, step=20) == (4, 4)  # of 4 steps leave 2
    assert settings_between({4.0: Settings({"a": (1, 2)}, tau=30)}, (3, 3)).dilation == {"a": (1, 3)}


def test_between_the_two_tables_of_the_longest_side():
    """SDXL's down_blocks.2 has 3 at 2048x4096 and 4 at 4096x4096."""
    name = "down_blocks.2.resnets.0.conv1"
    assert [both(auto(height, 4096, "sdxl"), name)[0] for height in (2048, 2560, 3072, 4096)] == [3, 3.25, 3.5, 4]


def test_damping_begins_as_the_identity():
    """Next to a table without damping the base pass equals the main pass; at x16 it is x16's."""
    near, far, table = auto(1288, 1288), auto(2040, 2040), auto(2048, 2048)
    for name in table.dilation:
        for step in (0, 20, 34):
            assert both(near, name, step, True) == pytest.approx(both(near, name, step), abs=0.02)
            assert both(far, name, step, True) == pytest.approx(both(table, name, step, True), abs=0.02)
    assert near.noise_damped_tau == far.noise_damped_tau == 35
    assert auto(1272, 1272).noise_damped_tau == 0
    assert near.at(35, base_pass=True) == ({}, ())


def test_windows_of_damping_and_dilation_that_differ():
    """After a table's window of damping its base pass is its main pass, which may last longer."""
    tables = {
        4.0: Settings({"a": 2}, tau=30, noise_damped_tau=10),
        16.0: Settings({"a": 4}, tau=30, noise_damped_dilation={"a": 3}, noise_damped_tau=20),
    }
    settings = settings_between(tables, (3, 3))
    assert settings.noise_damped_tau == 20
    assert [both(settings, "a", step, True)[0] for step in (0, 15, 20)] == [2, 2.5, 1]
    assert [both(settings, "a", step)[0] for step in (0, 15, 20)] == [3, 3, 3]


def test_dispersion_and_freeu_are_of_the_nearer_table():
    freeu = FreeU(1.1, 1.2, 0.6, 0.4)
    dispersed = {"dispersed": ("a",), "dispersed_tau": 40, "dispersed_size": 7, "dispersion_eta": 0.1, "freeu": freeu}
    tables = {4.0: Settings({"a": 2, "b": 2}, tau=30), 16.0: Settings({"a": 4, "b": 4}, tau=35, **dispersed)}
    below, above = settings_between(tables, (2.98, 2.98)), settings_between(tables, (3, 3))
    assert (below.dispersed, below.freeu) == ((), None)
    assert (above.dispersed, above.dispersed_size, above.dispersion_eta, above.freeu) == (("a",), 7, 0.1, freeu)
    assert above.at(34) == ({"a": 2.5, "b": 2.5}, ("a",))
    assert above.dispersed_tau == 35
    alone = {16.0: replace(tables[16.0], dilation={"a": (1, 4), "b": 4})}
    assert settings_between(alone, (4, 1)).dispersed == ()  # nothing of it is left
    assert settings_between(alone, (2.5, 1)).freeu is None  # nearer to no dilation


def test_missing_tables_are_no_anchors():
    small, elongated, large = (Settings({"a": d}, tau=40) for d in (2, 3, 4))
    for tables in ({16.0: large}, {4.0: small, 16.0: large}):
        assert settings_between(tables, (2, 4)) == settings_between(tables, (4, 4)) == large
    assert settings_between({8.0: elongated}, (4, 4)) == elongated
    assert settings_between({4.0: small}, (4, 4)).dilation == {"a": 4}
    assert settings_between({16.0: large}, (2, 2)).dilation["a"] == pytest.approx(1 + 3 * 0.75 / 2.75, abs=1e-6)
    assert settings_between({2.25: small, 25.0: large}, (3.25, 3.25)).dilation == {"a": 3}


def test_without_settings_for_the_model_it_raises():
    unknown = SimpleNamespace(unet=SimpleNamespace(config=SimpleNamespace(**vars(fake_pipe("sd15").unet.config))))
    unknown.unet.config.cross_attention_dim, unknown.vae_scale_factor = 999, 8
    assert auto_settings(unknown, 640, 640) == Settings()
    for tables in (None, {}):
        with pytest.raises(ValueError, match="there are no settings for this model"):
            auto_settings(unknown, 1024, 1024, tables)
    given = {4.0: Settings({"conv_in": 2}, tau=4), 16.0: Settings({"conv_in": 4}, tau=16)}
    sizes = {(1024, 1024): given[4.0], (1024, 2048): given[16.0], (2048, 2048): given[16.0]}
    assert {size: auto_settings(unknown, *size, given) for size in sizes} == sizes


def test_tables_within_the_dead_band_raise():
    with pytest.raises(ValueError, match=r"1.5 times the area lies in the dead band.*above 1.5625"):
        settings_between({1.5: Settings()}, (2, 2))


def test_the_choice_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="scalecrafter.auto"):
        for height, width in ((1536, 1024), (512, 512), (768, 512)):
            auto(height, width)
    mixed, nothing, part = (record.getMessage() for record in caplog.records)
    assert mixed.startswith("1536x1024 (height x width), 3 x 2 times the training size: ")
    assert mixed.endswith("0.67 of table x6.25 + 0.33 of table x8, factors at the first step up to 3 x 3")
    assert nothing.endswith("nothing is dilated")
    assert part.endswith("0.33 of table x4, factors at the first step up to 1.17 x 1")
