"""Settings between tables: what a call does, and that they are stored, changed and replayed like any others."""

import itertools
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from PIL import Image

import scalecrafter
from scalecrafter import FreeU, Settings, noise_damped
from scalecrafter.auto import settings_between
from scalecrafter.blend import Blend
from scalecrafter.cli import main
from tests.tiny import predict

TABLES = {4.0: "sd15_x4", 6.25: "sd15_x6_25", 16.0: "sd15_x16_disperse"}


def loaded():
    return {area: Settings.load(name) for area, name in TABLES.items()}


def between():
    """Settings with all that can lie between tables: two windows, base pass, dispersion, pairs of factors."""
    settings = settings_between(loaded(), (3.5, 1.5))
    assert isinstance(settings, Blend)
    assert settings.dispersed
    return settings


def test_plain_values_and_pickles_round_trip(tmp_path):
    settings = between()
    plain = json.loads(json.dumps(settings.to_dict()))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(settings.to_dict()))
    for again in (Settings.load(plain), Settings.load(path), pickle.loads(pickle.dumps(settings))):
        assert again == settings
        assert [again.at(step) for step in range(50)] == [settings.at(step) for step in range(50)]


def test_options_can_be_replaced_and_what_follows_from_tables_cannot():
    settings = replace(between(), noise_damped_tau=0, dispersed_tau=0)
    assert settings.at(0) == (between().at(0)[0], ())
    assert settings.at(0, base_pass=True) == ({}, ())
    with pytest.raises(ValueError, match="dilation"):
        replace(between(), dilation={})


def test_effective_settings_act_alike():
    for settings in (between(), replace(between(), dispersed_tau=50, freeu=FreeU(1, 1, 1, 1))):
        effective = settings.effective()
        for step, base_pass in itertools.product(range(51), (False, True)):
            assert effective.at(step, base_pass=base_pass) == settings.at(step, base_pass=base_pass)
        assert effective.effective() == effective
        assert effective.freeu == settings.freeu
    assert effective.dispersed_tau == 35
    assert replace(between(), dispersed_tau=0).effective().dispersed == ()


def test_changes_apply_to_the_tables():
    settings = between()
    early = settings.changed({"tau": 10, "dispersed_tau": 0})
    assert isinstance(early, Blend)
    assert early.at(0)[0] == settings.at(0)[0]
    assert early.at(10) == ({}, ())
    assert early.noise_damped_tau == settings.noise_damped_tau
    assert settings.changed({"noise_damped_tau": 0}).noise_damped_tau == 0
    assert replace(settings, noise_damped_tau=0).changed({"tau": 10}).noise_damped_tau == 0
    same = {"dilation": {"mid_block": 3}, "tau": 20, "progressive": False, "noise_damped_tau": 0, "dispersed": []}
    alike = settings_between(loaded(), (3, 3)).changed(same)
    assert alike == Settings.load(same)  # tables that are alike are one
    with pytest.raises(ValueError, match="unknown settings dilatoin"):
        settings.changed({"dilatoin": {}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tau": 3}, "tau follows from the parts"),
        ({"parts": {}}, "parts must be a list"),
        ({"parts": [{"weights": [1, 1]}]}, "a part has settings and weights"),
        ({"parts": [{"weights": [1, 2], "settings": {}}]}, "from 0 to 1"),
        ({"parts": [{"weights": 1, "settings": {}}]}, "from 0 to 1"),
        ({"parts": [{"weights": [1, 1], "settings": {}}] * 2}, "add up"),
        ({"parts": [{"weights": [1, 1], "settings": {"tau": 99}}]}, "0 to 50"),
        ({"scale": 0.5}, "scale must be a number of at least 1"),
        ({"mine": 0.5}, "unknown settings mine"),
        ({"noise_damped_tau": True}, "noise_damped_tau counts"),
        ({"dispersed": ["conv_in"]}, "conv_in is dispersed but not dilated"),
    ],
)
def test_invalid_values_raise(values, message):
    with pytest.raises(ValueError, match=message):
        Settings.load({"parts": []} | values)


def test_a_call_has_the_factors_of_its_step(save_pipeline):
    """Against explicit settings of that step, with both passes of noise-damped guidance and dispersion."""
    pipe, settings = StableDiffusionPipeline.from_pretrained(save_pipeline("sd15")), between()
    for t, step in ((981, 0), (581, 20), (281, 35)):
        passes = []
        for base_pass in (False, True):
            factors, dispersed = settings.at(step, base_pass=base_pass)
            explicit = Settings(factors, tau=50, dispersed=dispersed, dispersed_tau=50)
            with scalecrafter.enable(pipe, height=64, width=64, settings=explicit):
                passes.append(predict(pipe, t))
        expected = torch.cat(noise_damped(passes[1].chunk(2)[0], *passes[0].chunk(2))) if step < 35 else passes[0]
        with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
            torch.testing.assert_close(predict(pipe, t), expected, atol=1e-5, rtol=1e-5)


def test_an_image_between_tables_generates_itself_again(tmp_path, save_pipeline, monkeypatch):
    """112x64 is 3.5 x 2 times the training size."""
    monkeypatch.chdir(tmp_path)
    size = ["--height", "112", "--width", "64", "--steps", "2"]
    assert main(["generate", "a b", "--model", str(save_pipeline("sd15")), *size, "--out", "first.png"]) == 0
    stored = json.loads(Image.open("first.png").text["scalecrafter"])["settings"]
    np.testing.assert_allclose([part["weights"] for part in stored["parts"]], [[1 / 3] * 2, [2 / 3] * 2])
    assert main(["generate", "--from", "first.png", "--out", "again.png"]) == 0
    assert np.array_equal(*(np.asarray(Image.open(name)) for name in ("first.png", "again.png")))
