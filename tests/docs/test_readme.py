"""What README tells a stranger to type does what it says, on tiny models at a sixteenth of the sizes."""

import re

import numpy as np
import pytest
from PIL import Image

import scalecrafter
from scalecrafter.cli import main as command_line
from tests.docs.pages import DOCS, ROOT, blocks, commands_anywhere, smaller, text_of
from tests.scalecrafter.videos import FRAMES, motion_adapter

README = "/README.md"
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


def on_this_machine(block, folder):
    """With a tiny model, on the CPU, in two steps."""
    changes = {
        "DIR_OR_ID": str(folder),
        "torch.float16": "torch.float32",
        '.to("cuda")': "",
        '"a castle on a hill"': '"a castle on a hill", num_inference_steps=2',
        "num_frames=16": f"num_frames={FRAMES}",
    }
    for old, new in changes.items():
        block = block.replace(old, new)
    return smaller(block)


def test_your_own_pipeline(light_folder, save_pipeline, own_convolutions, tmp_path, monkeypatch):
    """SD 1.5, SDXL and AnimateDiff, each in the lines of README."""
    monkeypatch.chdir(tmp_path)
    motion_adapter().save_pretrained("ADAPTER")
    namespace, drawn = {}, []
    models = light_folder, save_pipeline("sdxl"), light_folder
    for block, model in zip(blocks(README, "python"), models, strict=True):
        exec(compile(on_this_machine(block, model), README, "exec"), namespace)
        drawn.append(namespace["frames"] if "frames" in namespace else [namespace["image"]])
        assert scalecrafter.active(namespace["pipe"]) is None
    assert [(len(images), images[0].size) for images in drawn] == [
        (1, (128, 128)),
        (1, (128, 128)),
        (FRAMES, (64, 64)),
    ]


def test_the_command_line(light_folder, own_convolutions, tmp_path, monkeypatch, capsys):
    """Every command of the program, in two steps; the last prints settings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DIR_OR_ID").symlink_to(light_folder)
    for words in (words for words in commands_anywhere(README) if words[0] == "scalecrafter"):
        steps = ["--steps", "2"] if "--model" in words else []
        capsys.readouterr()
        assert command_line([*map(smaller, words[1:]), *steps]) == 0, capsys.readouterr().err
    sizes = {path.name: Image.open(path).size for path in tmp_path.glob("*.png")}
    assert sizes == {"castle.png": (128, 128), "other.png": (128, 128), "large.png": (256, 256)}
    assert not np.array_equal(*(np.asarray(Image.open(name)) for name in ("castle.png", "other.png")))
    assert "noise_damped_tau" in capsys.readouterr().out


@pytest.mark.parametrize("page", [README, "/CONTRIBUTING.md", "/CHANGELOG.md"])
def test_links_lead_somewhere(page):
    """Those of docs/ are checked when the site is built."""
    found = LINK.findall(text_of(page))
    assert found or page == "/CHANGELOG.md"
    assert [link for link in found if not (ROOT / link).exists()] == []


def test_its_table_is_that_of_the_results():
    """Each cell stands in the row of the same size and method."""
    names = {"direct inference": "direct", "enlarged base sample": "upscale", "ScaleCrafter": "scalecrafter"}
    results = {}
    for line in (DOCS / "results.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
        if re.match(r"\| x\d+ ", line):
            results.setdefault((cells[0].split()[0].lstrip("x") + "x", cells[1]), cells)
    rows = re.findall(r"^\| (\d+x) \| ([\w ]+?) \| (.*) \|$", text_of(README), re.MULTILINE)
    assert len(rows) == 6
    for size, method, line in rows:
        kid, detail, repetition, shares, seconds = line.split(" | ")
        told = [kid, detail, repetition, *shares.split(", "), seconds]
        row = results[size, names[method]]
        assert told == [row[place] for place in (3, 8, 10, 11, 12, 13)]
