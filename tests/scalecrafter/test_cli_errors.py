"""What somebody gets wrong on the command line is one sentence that names it, and none of it is a traceback."""

import shutil

import huggingface_hub.constants
import pytest
from PIL import Image

from scalecrafter.cli import main

SIZE = ["--height", "64", "--width", "64", "--steps", "2"]
GENERATE = ["generate", "a b", *SIZE]
UPSCALE = ["upscale", "small.png", "--steps", "2"]


@pytest.fixture
def folder(pipe_folder, tmp_path, monkeypatch):
    """Where the commands are given: a model, an image, and what is no model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # or it would try for half a minute
    (tmp_path / "model").symlink_to(pipe_folder)
    shutil.copytree(pipe_folder, tmp_path / "half", ignore=shutil.ignore_patterns("unet"))
    shutil.copytree(pipe_folder, tmp_path / "cut")
    weights = tmp_path / "cut/unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.safetensors").write_bytes(b"")
    Image.new("RGB", (32, 32)).save("small.png")
    return tmp_path


def said(arguments, capfd):
    """The line on stderr, without the bars of progress of the libraries before it."""
    assert main(arguments) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("scalecrafter: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/nowhere/model", "--model /nowhere/model is not there"),
        ("./nowhere", "--model ./nowhere is not there"),
        ("some/repository", "--model some/repository is not here, and the hub did not give it"),
        ("empty", "--model empty holds no pipeline of diffusers: it has no model_index.json"),
        ("file.safetensors", "--model file.safetensors is a file: "),
        ("half", "--model half is damaged, incomplete or of another kind"),
        ("cut", "--model cut is damaged, incomplete or of another kind"),
    ],
)
def test_models_that_cannot_be_loaded(folder, capfd, model, message):
    assert message in said([*GENERATE, "--model", model], capfd)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ("/nowhere/lora.safetensors", "--lora /nowhere/lora.safetensors is not there"),
        ("some/lora", "--lora some/lora is not here, and the hub did not give it"),
        ("file.safetensors", "--lora file.safetensors is damaged, incomplete or of another kind"),
    ],
)
def test_lora_that_cannot_be_loaded(folder, capfd, lora, message):
    assert message in said([*GENERATE, "--model", "model", "--lora", lora], capfd)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*GENERATE, "--height", "0"], "--height must be at least 1, not 0"),
        ([*GENERATE, "--width", "-64"], "--width must be at least 1, not -64"),
        ([*GENERATE, "--guidance-scale", "nan"], "--guidance-scale must be a number from 0 to 1000, not nan"),
        ([*GENERATE, "--eta", "5"], "--eta must be a number from 0 to 1, not 5"),
        ([*GENERATE, "--settings", "nope"], "no settings 'nope'"),
        ([*UPSCALE, "--scale", "0"], "--scale must be a number from 1 to 100, not 0"),
        ([*UPSCALE, "--scale", "nan"], "--scale must be a number from 1 to 100, not nan"),
        ([*UPSCALE, "--scale", "1e9"], "--scale must be a number from 1 to 100, not 1e+09"),
        ([*UPSCALE, "--strength", "2"], "--strength must be a number from 0 to 1, not 2"),
        ([*UPSCALE, "--strength", "0.1"], "--strength 0.1 leaves none of 2 steps: raise one of them"),
    ],
)
def test_numbers_and_settings_are_checked_before_anything_is_loaded(folder, capfd, arguments, message):
    assert message in said([*arguments, "--model", "/nowhere"], capfd)


def test_an_image_that_does_not_fit_into_memory(folder, capfd):
    size = ["--height", "6400000", "--width", "6400000"]
    line = said([*GENERATE, *size, "--model", "model", "--settings", "sd15_x4"], capfd)
    assert "6400000x6400000 (height x width) does not fit into memory: take a smaller size" in line


def test_what_is_no_image(folder, capfd):
    assert "cannot read image file.safetensors: it is no image" in said(
        ["upscale", "file.safetensors", "--model", "model"], capfd
    )
