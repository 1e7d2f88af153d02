"""The adapter of ScaleCrafter: where its settings come from."""

import json

import numpy as np
import pytest

from baselines.direct import Direct
from baselines.scalecrafter import ScaleCrafter
from experiments.setup.schema import ROOT
from scalecrafter import Settings
from scalecrafter.settings import expand
from tests.tiny import generate

TABLES = {"4": "sd15_x4", 16: ROOT / "experiments/scenes/settings/x16.yaml"}


def test_auto_equals_direct_at_the_training_size(pipe):
    images = [generate(method, pipe, [1], (32, 32), steps=2) for method in (ScaleCrafter(), Direct())]
    assert np.array_equal(*images)


def test_auto_chooses_from_tables_for_models_without_shipped_settings(pipe):
    """A shipped name at four times the area, a file at sixteen, and that for sixteen at eight too."""
    method = ScaleCrafter(tables=TABLES)
    assert method.resolve(pipe, 64, 64) == Settings.load("sd15_x4")
    assert method.resolve(pipe, 128, 128) == Settings.load(TABLES[16])
    assert method.resolve(pipe, 64, 128) == Settings.load(TABLES[16])
    between = method.resolve(pipe, 80, 80).dilation
    assert {between[layer] for layer in Settings.load("sd15_x4").dilation} == {2.5}
    assert ScaleCrafter("sd15_x8", tables=TABLES).resolve(pipe, 64, 64) == Settings.load("sd15_x8")
    with pytest.raises(ValueError, match="there are no settings for this model"):
        ScaleCrafter().resolve(pipe, 64, 64)
    with pytest.raises(ValueError, match="no settings 'nowhere.yaml'"):
        ScaleCrafter(tables={4: "nowhere.yaml"}).resolve(pipe, 64, 64)


def test_changes_and_radius_apply_to_the_settings(pipe):
    changed = ScaleCrafter("sd15_x4", {"tau": 20, "progressive": None}, radius=3).resolve(pipe, 64, 64)
    assert changed.tau == 20
    assert not changed.progressive
    assert set(changed.dilation.values()) == {3}
    assert set(changed.dilation) == set(Settings.load("sd15_x4").dilation)
    values = {"dilation": {"mid_block": 2}, "tau": 7}
    assert ScaleCrafter(values).resolve(pipe, 64, 64) == Settings(expand({"mid_block": 2}), tau=7)


def test_between_tables_changes_and_radius_apply_to_both(pipe):
    """Here the tables then agree, and the settings are plain ones."""
    changes = {"tau": 40, "progressive": False, "noise_damped_tau": 0, "dispersed_tau": 0}
    tables = {4: "sd15_x4", 16: "sd15_x16"}
    described = ScaleCrafter(changes=changes, radius=3, tables=tables).describe(pipe, 80, 80)
    assert described == Settings(dict.fromkeys(Settings.load("sd15_x4").dilation, 3), tau=40).to_dict()


def test_description_is_plain_values_of_the_effective_settings(pipe):
    described = ScaleCrafter("sd15_x4").describe(pipe, 64, 64)
    assert json.loads(json.dumps(described)) == Settings.load("sd15_x4").effective().to_dict()
    assert not pipe.unet._forward_hooks
