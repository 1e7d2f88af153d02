"""The command line, as a user runs it."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import scalecrafter
from scalecrafter.cli import build_parser, main
from scalecrafter.loading import load_pipeline
from scalecrafter.png import save_png
from scalecrafter.settings import available_settings


def test_settings_are_listed_and_shown(capsys):
    assert main(["settings"]) == 0
    assert capsys.readouterr().out.split() == available_settings()
    assert main(["settings", "sd15_x4"]) == 0
    shown = capsys.readouterr().out
    assert "tau: 30" in shown
    assert "mid_block.resnets.0.conv1: 2.0" in shown


def test_generate_writes_a_png_with_its_settings(tmp_path, pipe_folder, capsys):
    settings = tmp_path / "mine.yaml"
    settings.write_text("tau: 50\ndilation:\n  mid_block: 2\n")
    size = ["--height", "64", "--width", "96", "--steps", "1", "--settings", str(settings)]
    out = tmp_path / "out.png"
    assert main(["generate", "a b", "--model", str(pipe_folder), *size, "--out", str(out)]) == 0
    image = Image.open(out)
    assert image.size == (96, 64)
    assert json.loads(image.text["scalecrafter"])["settings"]["tau"] == 50


SIZE = ["--height", "64", "--width", "64", "--steps", "2"]


def pixels(path):
    return np.asarray(Image.open(path))


def test_an_image_generates_itself_again(tmp_path, pipe_folder, monkeypatch):
    """From its metadata alone, and with one option changed. An existing file is kept unless --force says otherwise."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("tau: 50\ndilation:\n  mid_block: 2\n")
    options = ["--settings", "mine.yaml", "--scheduler", "DDIM", "--eta", "1", "--negative-prompt", "c", "--seed", "3"]
    assert main(["generate", "a b", "--model", str(pipe_folder), *SIZE, *options, "--out", "first.png"]) == 0
    Path("mine.yaml").unlink()
    assert main(["generate", "--from", "first.png", "--out", "again.png"]) == 0
    assert np.array_equal(pixels("first.png"), pixels("again.png"))
    assert Image.open("again.png").text == Image.open("first.png").text
    assert main(["generate", "--from", "first.png"]) == 0
    assert main(["generate", "--from", "first.png"]) == 2
    assert main(["generate", "--from", "first.png", "--seed", "4", "--force"]) == 0
    assert not np.array_equal(pixels("first.png"), pixels("image.png"))


@pytest.fixture(scope="module")
def plain(save_pipeline, tmp_path_factory):
    """Pixels of an image with nothing but a size."""
    out = tmp_path_factory.mktemp("plain") / "plain.png"
    assert main(["generate", "a b", "--model", str(save_pipeline("sd15")), *SIZE, "--out", str(out)]) == 0
    return pixels(out)


@pytest.mark.parametrize(
    "option",
    [
        ["--negative-prompt", "c"],
        ["--scheduler", "EulerAncestralDiscrete"],
        ["--eta", "1"],
        ["--guidance-scale", "3"],
        ["--settings", "sd15_x16"],
        ["--lora", "LORA"],
    ],
    ids=lambda option: option[0],
)
def test_every_option_changes_the_image(tmp_path, save_pipeline, monkeypatch, plain, option):
    monkeypatch.chdir(tmp_path)
    folder = save_pipeline("sd15")
    if option[0] == "--lora":
        pipe = StableDiffusionPipeline.from_pretrained(folder)
        pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["to_q"], init_lora_weights=False))
        pipe.save_lora_weights("LORA", get_peft_model_state_dict(pipe.unet))
    assert main(["generate", "a b", "--model", str(folder), *SIZE, *option, "--out", "changed.png"]) == 0
    assert not np.array_equal(plain, pixels("changed.png"))


def test_several_images_have_consecutive_seeds(tmp_path, pipe_folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shared = ["generate", "a b", "--model", str(pipe_folder), *SIZE, "--settings", "sd15_x4"]
    assert main([*shared, "--seed", "5", "--number", "2", "--out", "many.png"]) == 0
    assert capsys.readouterr().out.split() == ["many-5.png", "many-6.png"]
    assert main([*shared, "--seed", "6", "--out", "one.png"]) == 0
    assert np.array_equal(pixels("many-6.png"), pixels("one.png"))
    assert main([*shared, "--seed", "6", "--number", "2", "--out", "many.png"]) == 2


def test_guidance_is_the_familys_own(tmp_path, save_pipeline, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for family, expected in (("sd15", 7.5), ("sdxl", 5.0)):
        out = f"{family}.png"
        assert main(["generate", "a b", "--model", str(save_pipeline(family)), *SIZE, "--out", out]) == 0
        assert json.loads(Image.open(out).text["scalecrafter"])["guidance_scale"] == expected


def test_weights_are_loaded_in_their_precision(pipe_folder):
    """Without a copy in float32 before."""
    arguments = build_parser().parse_args(["generate", "x", "--model", str(pipe_folder), "--dtype", "bfloat16"])
    pipe = load_pipeline(arguments)
    assert {p.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder) for p in part.parameters()} == {
        torch.bfloat16
    }


GENERATE = ["generate", "x", "--model", "/nowhere", "--height", "64", "--width", "64"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["settings", "sd16"], "no settings 'sd16'"),
        (GENERATE, "nowhere"),
        ([*GENERATE, "--out", "image.jpg"], "image.jpg must end in .png"),
        ([*GENERATE, "--out", "/nowhere/image.png"], "no folder /nowhere for the image"),
        ([*GENERATE, "--steps", "0"], "--steps must be at least 1"),
        ([*GENERATE, "--number", "0"], "--number must be at least 1"),
        (["generate", "x", "--model", "/nowhere"], "missing: --height, --width"),
        (["generate", "--from", "/nowhere.png"], "nowhere.png"),
    ],
)
def test_errors_are_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_other_images_schedulers_and_noise_are_refused(tmp_path, pipe_folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("other.png")
    shared = ["generate", "a b", "--model", str(pipe_folder), *SIZE, "--settings", "sd15_x4"]
    for arguments, message in (
        (["generate", "--from", "other.png"], "other.png was not generated by scalecrafter"),
        ([*shared, "--scheduler", "FlowMatchEulerDiscrete"], "is none that this pipeline accepts: DDIM, "),
        ([*shared, "--scheduler", "EulerDiscrete", "--eta", "1"], "EulerDiscreteScheduler has no --eta"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_upscale_denoises_the_enlarged_image(tmp_path, save_pipeline, monkeypatch, capsys):
    """As diffusers' image-to-image does with the method enabled at the larger size."""
    monkeypatch.chdir(tmp_path)
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8))
    small.save("small.png")
    options = ["--model", str(save_pipeline("sd15")), "--steps", "4", "--prompt", "a b", "--settings", "sd15_x4"]
    for strength, out in (("0.5", "half.png"), ("1", "whole.png")):
        assert main(["upscale", "small.png", *options, "--strength", strength, "--out", out]) == 0
    pipe = StableDiffusionImg2ImgPipeline.from_pretrained(save_pipeline("sd15"))
    pipe.set_progress_bar_config(disable=True)
    with scalecrafter.enable(pipe, height=64, width=96, settings="sd15_x4"):
        expected = pipe(
            "a b",
            image=small.resize((96, 64), Image.Resampling.LANCZOS),
            strength=0.5,
            num_inference_steps=4,
            guidance_scale=7.5,
            generator=torch.Generator().manual_seed(0),
        ).images[0]
    assert np.array_equal(pixels("half.png"), np.asarray(expected))
    assert not np.array_equal(pixels("half.png"), pixels("whole.png"))
    assert main(["generate", "--from", "half.png", "--out", "again.png"]) == 2
    assert "is an enlarged image" in capsys.readouterr().err
    assert main(["upscale", "small.png"]) == 2
    assert "missing: --model" in capsys.readouterr().err


def test_upscale_gives_the_size_that_is_asked_for(tmp_path, save_pipeline, monkeypatch):
    """1.3 times 48x31 is 62x40: what is drawn has two more columns, like the last one."""
    monkeypatch.chdir(tmp_path)
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 48, 3)).astype(np.uint8))
    small.save("small.png")
    options = ["--model", str(save_pipeline("sd15")), "--steps", "2", "--settings", "sd15_x4", "--strength", "1"]
    assert main(["upscale", "small.png", *options, "--scale", "1.3", "--out", "large.png"]) == 0
    enlarged = np.asarray(small.resize((62, 40), Image.Resampling.LANCZOS))
    padded = np.concatenate([enlarged, enlarged[:, -1:], enlarged[:, -1:]], axis=1)
    pipe = StableDiffusionImg2ImgPipeline.from_pretrained(save_pipeline("sd15"))
    pipe.set_progress_bar_config(disable=True)
    with scalecrafter.enable(pipe, height=40, width=64, settings="sd15_x4"):
        generator = torch.Generator().manual_seed(0)
        image = Image.fromarray(padded)
        expected = pipe("", image, 1.0, num_inference_steps=2, guidance_scale=7.5, generator=generator).images[0]
    assert np.array_equal(pixels("large.png"), np.asarray(expected)[:, :62])


def test_an_image_that_cannot_be_written_replaces_none(tmp_path):
    """The limit on a file's size stands for a full disk."""
    path = tmp_path / "image.png"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    save_png(noise, path, PngInfo())
    before = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            save_png(noise, path, PngInfo())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["image.png"]
