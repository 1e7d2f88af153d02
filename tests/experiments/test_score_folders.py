"""`python -m experiments.score --images DIR --reference DIR` on folders that belong to no run."""

import json

import pytest
from PIL import Image

from eval.score import score_features
from experiments.scenes.features import SceneFeatures
from experiments.scenes.render import render, sample_scenes
from experiments.score import score


@pytest.fixture
def folders(tmp_path):
    """Eight rendered scenes at 128x128, and twelve real ones of two sizes, two of them small."""
    for folder, seed, sides in (("images", 1, [128] * 8), ("real", 2, [128] * 5 + [160] * 5 + [64] * 2)):
        (tmp_path / folder).mkdir()
        for i, (scene, side) in enumerate(zip(sample_scenes(len(sides), seed), sides, strict=True)):
            Image.fromarray(render(scene, side, side)).save(tmp_path / folder / f"{i:02d}.png")
    return tmp_path


def run(folders, *options, capsys):
    paths = ["--images", str(folders / "images"), "--reference", str(folders / "real")]
    score([*paths, "--features", "scenes", "--cache", str(folders / "cache"), *options])
    return json.loads(capsys.readouterr().out)


def test_two_folders(folders, capsys):
    scores = run(folders, "--out", str(folders / "scores.json"), capsys=capsys)
    extractor = SceneFeatures()
    sides = {"images": [128] * 8, "real": [128] * 5 + [160] * 5 + [64] * 2}
    found = []
    for folder, seed in (("images", 1), ("real", 2)):
        scenes = zip(sample_scenes(len(sides[folder]), seed), sides[folder], strict=True)
        found.append([extractor(render(scene, side, side)[None])[0] for scene, side in scenes])
    expected = score_features(*found, "r")
    for key in ("fid_r", "fid_r_se", "kid_r", "kid_r_se"):
        assert scores[key] == pytest.approx(expected[key], rel=1e-3, abs=1e-6)
    assert scores["protocol"]["reference"]["n"] == 12
    assert json.loads((folders / "scores.json").read_text()) == scores


def test_crops_leave_out_real_images_that_are_too_small(folders, capsys):
    scores = run(folders, "--crops", "100:3", capsys=capsys)
    assert scores["pfid_r"] > 0
    assert scores["protocol"]["reference"]["left_out"] == 2
    assert scores["protocol"]["crops"] == {"size": 100, "count": 3, "seed": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "/nowhere"], "no folder of images at /nowhere"),
        (["--crops", "129:3"], "smaller than a crop of 129"),
        (["--crops", "500:3"], "no image in .*real has 500 pixels"),
        (["--features", "inception", "--weights", "/nowhere.pth"], "no Inception weights at /nowhere.pth"),
    ],
)
def test_what_is_wrong_is_said(folders, capsys, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(folders, *options, capsys=capsys)


def test_crops_that_are_none(folders, capsys):
    with pytest.raises(SystemExit):
        run(folders, "--crops", "ten", capsys=capsys)
    assert "not SIZE:COUNT" in capsys.readouterr().err
