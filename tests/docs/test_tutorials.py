"""The code on the pages runs as it stands, on small real pipelines at a sixteenth of the pages' sizes."""

import runpy
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import scalecrafter
from experiments.scenes.renderer.scene import render, sample_scenes
from scalecrafter.cli import main as command_line
from tests.docs.pages import ROOT, blocks, commands, smaller, text_of
from tests.tiny import tiny_overrides

SMALL = ["prompts.limit=3", "metrics.crops=null"]


def run_blocks(page, namespace):
    for block in blocks(page, "python"):
        exec(compile(smaller(block), page, "exec"), namespace)
    return namespace


@pytest.fixture
def folder(light_folder, own_convolutions, tmp_path, monkeypatch):
    """Where the tutorials start: a model, prompts, and two folders of images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_model").symlink_to(light_folder)
    prompts = blocks("tutorials/prompts.md", "text")[0]
    (tmp_path / "prompts.txt").write_text(prompts, encoding="utf-8")
    for name, seed, count in (("mine", 1, 4), ("reals", 2, 8)):
        (tmp_path / name).mkdir()
        for i, scene in enumerate(sample_scenes(count, seed)):
            Image.fromarray(render(scene, 64, 64)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def pixels(image):
    return np.asarray(image)


def test_your_pipeline(folder):
    found = run_blocks("tutorials/pipeline.md", {})
    assert Image.open(folder / "castle.png").size == found["castle"].size == (64, 64)
    assert not np.array_equal(pixels(found["castle"]), pixels(found["repeated"]))
    assert found["wide"].size == (96, 64)
    assert np.array_equal(pixels(found["small"]), pixels(found["draw"](32, 32)))
    assert found["undamped"].size == (128, 128)
    assert not np.array_equal(pixels(found["deepest_only"]), pixels(found["castle"]))
    assert scalecrafter.active(found["pipe"]) is None


def test_the_sentences_about_settings_hold():
    """On the page of your pipeline: the shipped window, and that the change removes the second pass."""
    assert scalecrafter.Settings.load("sd15_x4").tau == 30
    assert "first 30 of the paper's 50 steps" in text_of("tutorials/pipeline.md")
    assert scalecrafter.Settings.load("sd15_x16").noise_damped_tau > 0


def test_the_command_line_of_your_pipeline(folder, capsys):
    """Each command as it stands but for size and steps."""
    for program, *words in commands("tutorials/pipeline.md"):
        assert program == "scalecrafter"
        arguments = ["2" if word == "30" else smaller(word) for word in words]
        assert command_line(arguments) == 0, capsys.readouterr().err
    assert Image.open(folder / "hill.png").size == Image.open(folder / "other_hill.png").size == (64, 64)
    assert not np.array_equal(pixels(Image.open("hill.png")), pixels(Image.open("other_hill.png")))


def test_the_start(folder):
    """The block needs a pipeline, and draws the large image in two steps."""
    pipe = StableDiffusionPipeline.from_pretrained("my_model")
    (block,) = blocks("index.md", "python")
    namespace = {"pipe": pipe}
    exec(smaller(block.replace("height=", "num_inference_steps=2, height=")), namespace)
    assert namespace["image"].size == (128, 128)


def test_how_it_works():
    """The blocks of the page are assertions."""
    run_blocks("how_it_works.md", {})


def test_the_model_card(monkeypatch):
    monkeypatch.chdir(ROOT)
    namespace = {}
    for block in blocks("scenes_model_card.md", "python"):
        exec(block.replace("num_inference_steps=15", "num_inference_steps=2"), namespace)
    assert namespace["image"].size == (128, 128)
    assert namespace["pipe"].unet.dtype == torch.float32


def run_module(words, options, monkeypatch):
    """``python -m MODULE ...`` in this process, with more options."""
    (python, flag, module), arguments = words[:3], words[3:]
    assert (python, flag) == ("python", "-m")
    monkeypatch.setattr(sys, "argv", [module, *arguments, *options])
    monkeypatch.delitem(sys.modules, module, raising=False)
    runpy.run_module(module, run_name="__main__")


def overrides(folder, inception_file):
    """What makes the runs of the tutorials small, beside what the pages say themselves."""
    kept = [each for each in tiny_overrides(folder / "my_model", folder) if not each.startswith("model=")]
    return [*kept, *SMALL, f"metrics.weights={inception_file}"]


@pytest.mark.slow  # half a minute of sampling, planning and drawing
def test_your_prompts_and_reference(folder, inception_file, monkeypatch, capsys):
    small = overrides(folder, inception_file)
    look, compare, plan, folders = commands("tutorials/prompts.md")
    run_module(look, small, monkeypatch)
    run = capsys.readouterr().out.splitlines()[-1]
    assert sorted(path.suffix for path in (folder / run / "images").iterdir()) == [".png"] * 3
    run_module(compare, small, monkeypatch)
    table = pd.read_csv(folder / "results/table1.csv")
    assert list(table["method"]) == ["direct", "upscale", "scalecrafter"]
    assert table["fid_r"].nunique() == 3
    run_module(plan, small, monkeypatch)
    run_module(folders, ["--weights", str(inception_file)], monkeypatch)
    assert '"kid_r"' in capsys.readouterr().out


@pytest.mark.slow  # the same
def test_a_cluster(folder, inception_file, monkeypatch, capsys):
    """SLURM's launcher is composed, not started; the table comes from two shards of each row."""
    small = overrides(folder, inception_file)
    fetch, plan, slurm, shards, table, report = commands("tutorials/cluster.md")
    for words in (fetch, plan):
        run_module(words, small, monkeypatch)
    capsys.readouterr()
    one = [word for word in slurm if "," not in word]  # --cfg shows one row
    run_module(one, [*small, "--cfg", "hydra", "--package", "hydra.launcher"], monkeypatch)
    launcher = capsys.readouterr().out
    assert "SlurmLauncher" in launcher
    assert "partition: gpu" in launcher
    assert "gpus_per_node: 1" in launcher
    run_module(shards, small, monkeypatch)
    assert not (folder / "results").exists()
    run_module(table, small, monkeypatch)
    assert list(pd.read_csv(folder / "results/table1.csv")["method"]) == ["direct", "scalecrafter"]
    run_module(report, [each for each in small if each.startswith("paths.")], monkeypatch)
    assert (folder / "results/report.html").exists()
