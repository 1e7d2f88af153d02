"""The command line, as a user runs it."""

import json

import pytest
from PIL import Image

from scalecrafter.cli import main
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


GENERATE = ["generate", "x", "--model", "/nowhere", "--height", "64", "--width", "64"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["settings", "sd16"], "no settings 'sd16'"),
        (GENERATE, "nowhere"),
        ([*GENERATE, "--out", "image.jpg"], "image.jpg must end in .png"),
        ([*GENERATE, "--out", "/nowhere/image.png"], "no folder /nowhere for the image"),
        ([*GENERATE, "--steps", "0"], "--steps must be at least 1"),
    ],
)
def test_errors_are_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
