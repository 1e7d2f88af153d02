"""The pipelines of scalecrafter.diffusers draw what `scalecrafter.enable` draws, and are loaded and saved like any."""

import importlib.util
import json
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
import yaml
from diffusers.utils.dynamic_modules_utils import find_pipeline_class

import scalecrafter
import scalecrafter.diffusers as ours
from scalecrafter import Settings

FOLDER = Path(ours.__file__).parent
FAMILIES = {"sd15": "StableDiffusionPipeline", "sd21": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}
CLASSES = ["sd15", "sdxl"]  # one family of each


def draw(pipe, side, **options):
    """In three steps, the first of which is in the windows of all settings."""
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 3, "generator": torch.Generator().manual_seed(0), "output_type": "np"} | options
    images = pipe("a b", height=side, width=side, **options).images
    assert images.shape == (1, side, side, 3)
    return images


def community_class():
    """The class that diffusers takes from the file, loaded as diffusers loads it."""
    spec = importlib.util.spec_from_file_location("diffusers_modules.local.pipeline", FOLDER / "pipeline.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return find_pipeline_class(module)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_draws_what_enable_draws(save_pipeline, family):
    """At four times the area, of SDXL also at sixteen, and at the training size what the plain pipeline draws; bit for
    bit.
    """
    folder = save_pipeline(family)
    plain = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe = getattr(ours, FAMILIES[family]).from_pretrained(folder)
    assert np.array_equal(draw(pipe, 32), draw(plain, 32))
    for side in (64, 128) if family == "sdxl" else (64,):
        with scalecrafter.enable(plain, height=side, width=side):
            expected = draw(plain, side)
        assert np.array_equal(draw(pipe, side), expected)
        assert not np.array_equal(draw(plain, side), expected)
    assert scalecrafter.active(pipe) is None


def test_settings(save_pipeline, tmp_path):
    """A shipped name, a file and a `Settings`, each unlike auto."""
    pipe = ours.StableDiffusionPipeline.from_pretrained(save_pipeline("sd15"))
    auto = draw(pipe, 64)
    named = draw(pipe, 64, settings="sd15_x16")
    assert not np.array_equal(named, auto)
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(Settings.load("sd15_x16").to_dict()))
    assert np.array_equal(draw(pipe, 64, settings=str(file)), named)
    assert np.array_equal(draw(pipe, 64, settings=Settings.load("sd15_x16")), named)
    with pytest.raises(ValueError, match="choose from auto, sd15_x16"):
        draw(pipe, 64, settings="sd15_x3")


@pytest.mark.parametrize("family", CLASSES)
def test_what_it_saves_is_an_ordinary_folder(save_pipeline, family, tmp_path):
    kind = getattr(ours, FAMILIES[family])
    pipe = kind.from_pretrained(save_pipeline(family))
    pipe.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved/model_index.json").read_text())["_class_name"] == FAMILIES[family]
    plain = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert type(plain) is getattr(diffusers, FAMILIES[family])
    assert np.array_equal(draw(plain, 32), draw(pipe, 32))
    assert np.array_equal(draw(kind.from_pretrained(tmp_path / "saved"), 64), draw(pipe, 64))


def test_parts_of_a_pipeline_that_is_there(save_pipeline):
    plain = diffusers.DiffusionPipeline.from_pretrained(save_pipeline("sd15"))
    pipe = ours.StableDiffusionPipeline.from_pipe(plain)
    assert pipe.unet is plain.unet
    with scalecrafter.enable(plain):
        expected = draw(plain, 64)
    assert np.array_equal(draw(pipe, 64), expected)
    assert type(diffusers.AutoPipelineForImage2Image.from_pipe(pipe)) is diffusers.StableDiffusionImg2ImgPipeline


@pytest.mark.parametrize("family", CLASSES)
def test_the_class_of_the_file_makes_the_same_pipelines(save_pipeline, family):
    """With what the folder says of the safety checker and the like."""
    kind = getattr(ours, FAMILIES[family])
    made, pipe = (each.from_pretrained(save_pipeline(family)) for each in (community_class(), kind))
    assert type(made) is kind
    assert {**made.config, "_name_or_path": None} == {**pipe.config, "_name_or_path": None}
    assert np.array_equal(draw(made, 64), draw(pipe, 64))


@pytest.mark.parametrize("family", CLASSES)
def test_parts_that_a_folder_does_not_hold(save_pipeline, family):
    """diffusers leaves them out when it loads the file."""
    plain = diffusers.DiffusionPipeline.from_pretrained(save_pipeline(family))
    pipe = community_class()(**{name: part for name, part in plain.components.items() if part is not None})
    assert type(pipe) is getattr(ours, FAMILIES[family])
    assert pipe.components == plain.components


def test_diffusers_asks_for_trust_before_it_runs_the_file(save_pipeline):
    """Even a local one: docs/integrations.md says what to do instead."""
    with pytest.raises(ValueError, match="trust_remote_code"):
        diffusers.DiffusionPipeline.from_pretrained(save_pipeline("sd15"), custom_pipeline=str(FOLDER))


def test_diffusers_itself_is_not_hidden():
    """By the folder of the same name, for the modules in it and beside it."""
    assert Path(diffusers.__file__).parent != FOLDER
    assert ours.stable_diffusion.diffusers is diffusers
    assert not hasattr(ours, "DiffusionPipeline")
