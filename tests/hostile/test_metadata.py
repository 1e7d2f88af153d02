"""`scalecrafter generate --from PNG`: an image of somebody else decides what is generated, and nothing besides."""

import json
from pathlib import Path
from random import Random

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from scalecrafter import cli
from scalecrafter.png import read_metadata
from tests.hostile.inputs import BOTH, damaged, text, writes_only

STORED = {
    "command": "generate",
    "prompt": "a",
    "height": 64,
    "width": 64,
    "model": "/nowhere",
    "variant": None,
    "lora": None,
    "settings": {"tau": 3},
    "negative_prompt": None,
    "scheduler": None,
    "steps": 2,
    "guidance_scale": 4.0,
    "eta": 0.0,
    "seed": 1,
    "dtype": "auto",
}
VALUES = [None, -1, 0, 10**400, 1.5, float("nan"), "", "x", [], [1], {}, {"a": 1}, True, "../../up.png"]


def png(path: Path, stored: str) -> Path:
    info = PngInfo()
    info.add_text("scalecrafter", stored)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Exit code and the line of ``generate --from FILE`` or another command; nothing is loaded or written."""

    def load(arguments):
        raise ValueError("this would be loaded")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "load_pipeline", load)

    def command(file: Path, *options: str) -> tuple[int, str]:
        with writes_only():
            code = cli.main([*(options or ("generate", "--from")), str(file), "--model", "/nowhere"])
        shown = capsys.readouterr()
        assert len(shown.err.splitlines()) == 1, shown.err
        assert len(shown.err) < 4100
        assert shown.err.removesuffix("\n").isprintable()
        return code, shown.err

    return command


def test_what_is_stored_is_used(run, tmp_path):
    assert run(png(tmp_path / "a.png", json.dumps(STORED))) == (2, "scalecrafter: this would be loaded\n")


@pytest.mark.parametrize("name", ["out", "force", "number", "source", "func", "parse_args", "_x", "help", ""])
def test_only_options_of_sampling_are_taken(tmp_path, name):
    """Least of all where an image is written, and whether it replaces another."""
    victim = tmp_path / "victim.png"
    stored = STORED | {name: str(victim) if name == "out" else True}
    with pytest.raises(ValueError, match="metadata"):
        cli.parse(["generate", "--from", str(png(tmp_path / "a.png", json.dumps(stored)))])


@pytest.mark.parametrize("stored", ["", "[]", "3", "null", '"a"', "{", "[" * 100_000, '{"a": ' * 50_000, "NaN", "{}"])
def test_what_is_no_object_is_refused(run, tmp_path, stored):
    assert run(png(tmp_path / "a.png", stored))[0] == 2


@pytest.mark.parametrize("name", STORED)
def test_values_of_other_types_are_refused(run, tmp_path, name):
    for value in VALUES:
        assert run(png(tmp_path / "a.png", json.dumps(STORED | {name: value})))[0] == 2


def test_bombs_are_refused(run, tmp_path, monkeypatch):
    path = png(tmp_path / "a.png", json.dumps(STORED))
    content = bytearray(path.read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2  # the header's width and height
    path.write_bytes(content)
    assert run(path)[0] == 2
    with pytest.raises((ValueError, OSError)):
        read_metadata(path)


@pytest.mark.parametrize("count", BOTH)
def test_random_metadata(run, tmp_path, count):
    random, path = Random(5), tmp_path / "a.png"
    for _ in range(count):
        values = STORED | {random.choice([*STORED, text(random)]): text(random)}
        assert run(png(path, json.dumps(values)))[0] == 2


@pytest.mark.parametrize("count", BOTH)
def test_damaged_files(run, tmp_path, count):
    random, path = Random(6), tmp_path / "a.png"
    whole = png(path, json.dumps(STORED)).read_bytes()
    for _ in range(2 * count):
        path.write_bytes(damaged(random, whole))
        assert run(path)[0] == 2
        path.write_bytes(damaged(random, whole))
        assert run(path, "upscale")[0] == 2
