"""`python -m experiments.score_folders` on folders that belong to no run."""

import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import t

from eval import library_statistics
from eval.files import sha256_of_file
from eval.score import as_estimate, score_features
from experiments.scenes.renderer.scene import render, sample_scenes
from experiments.scenes.scene_features import DetailFeatures, SceneFeatures
from experiments.score_folders import main
from tests.eval.helpers import MeanColour


class Grey(MeanColour):
    """Mean colours as a feature space of images and crops alike."""

    side, resizing = 100, "none"


SIDES = {"images": [128] * 8, "real": [128] * 5 + [160] * 5 + [64] * 2}
SEEDS = {"images": 1, "real": 2}


@pytest.fixture(scope="module")
def rendered():
    """Eight rendered scenes at 128x128, and twelve real ones of two sizes, two of them small."""
    found = {}
    for kind, sides in SIDES.items():
        scenes = sample_scenes(len(sides), SEEDS[kind])
        found[kind] = [render(scene, side, side) for scene, side in zip(scenes, sides, strict=True)]
    return found


@pytest.fixture(scope="module")
def written(rendered, tmp_path_factory):
    """These images as files, and what was extracted from them; not to be changed."""
    folder = tmp_path_factory.mktemp("written")
    for kind, images in rendered.items():
        (folder / kind).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / kind / f"{i:02d}.png", compress_level=1)
    return folder


@pytest.fixture
def folders(written, tmp_path):
    return shutil.copytree(written, tmp_path, dirs_exist_ok=True)


def run(folders, *options, capsys):
    paths = ["--images", str(folders / "images"), "--reference", str(folders / "real")]
    main([*paths, "--features", "scenes", "--cache", str(folders / "cache"), *options])
    return json.loads(capsys.readouterr().out)


def test_scores_match_the_features_of_both_folders(folders, rendered, capsys):
    scores = run(folders, "--out", str(folders / "scores.json"), capsys=capsys)
    extractor = SceneFeatures()
    found = [np.stack([extractor(image[None])[0] for image in rendered[kind]]) for kind in ("images", "real")]
    expected = score_features(*found, "r")
    for key in ("fid_r", "fid_r_se", "kid_r", "kid_r_se"):
        assert scores[key] == pytest.approx(expected[key], rel=1e-3, abs=1e-6)
    assert scores["protocol"]["reference"]["n"] == 12
    kept = json.loads((folders / "scores.json").read_text())
    assert {key: value for key, value in kept.items() if not key.endswith("_jackknife")} == scores
    assert as_estimate(kept, "fid_r").se == pytest.approx(scores["fid_r_se"])


def test_crops_leave_out_real_images_that_are_too_small(folders, capsys):
    scores = run(folders, "--crops", "100:3", capsys=capsys)
    assert scores["pfid_r"] > 0
    assert scores["protocol"]["reference"]["left_out"] == 2
    assert scores["protocol"]["crops"] == "3 crops of 100x100 per image, by name, seed 0"
    assert scores["protocol"]["extractor"] == "scenes detail"
    assert scores["protocol"]["extractor_sha256"] == DetailFeatures().digest


def test_whole_reference_needs_one_feature_space(folders, capsys, monkeypatch):
    """Crops against whole images only where both have the same features; scenes have not."""
    with pytest.raises(ValueError, match="scenes compares crops in another feature space than whole images"):
        run(folders, "--crops", "100:3", "--whole-reference", capsys=capsys)
    monkeypatch.setattr("experiments.scoring.folders.build_extractor", lambda *options: Grey())
    cropped = run(folders, "--crops", "100:3", capsys=capsys)
    whole = run(folders, "--crops", "100:3", "--whole-reference", capsys=capsys)
    assert whole["protocol"]["reference"]["crops"] == "whole images"
    assert whole["pfid_r"] != cropped["pfid_r"]


def test_minimum_side_leaves_out_small_real_images(folders, capsys):
    scores = run(folders, "--minimum-side", "129", capsys=capsys)
    assert scores["protocol"]["reference"]["n"] == 5
    assert scores["protocol"]["reference"]["left_out"] == 7
    assert scores["fid_r"] != run(folders, capsys=capsys)["fid_r"]


def test_saved_reference_replaces_its_images(folders, capsys):
    expected = run(folders, "--save-reference", str(folders / "real.npz"), capsys=capsys)
    found = run(folders, "--reference", str(folders / "real.npz"), capsys=capsys)
    assert found == expected
    with pytest.raises(ValueError, match="its extractor is scenes, here it is scenes detail"):
        run(folders, "--reference", str(folders / "real.npz"), "--crops", "64:3", capsys=capsys)
    run(folders, "--save-reference", str(folders / "crops.npz"), "--crops", "32:2", capsys=capsys)
    with pytest.raises(ValueError, match="its crops is 2 crops of 32x32 .*, here it is 3 crops of 64x64"):
        run(folders, "--reference", str(folders / "crops.npz"), "--crops", "64:3", capsys=capsys)


def test_tar_shards_and_rendered_scenes_are_references(folders, rendered, capsys):
    expected = run(folders, capsys=capsys)
    with tarfile.open(folders / "real.tar", "w") as archive:
        for path in sorted((folders / "real").iterdir()):
            archive.add(path, path.name)
    found = run(folders, "--reference", str(folders / "real.tar"), capsys=capsys)
    assert found["fid_r"] == expected["fid_r"]
    scores = run(folders, "--reference", "scenes", "--scenes", "9", capsys=capsys)
    assert scores["protocol"]["reference"]["source"] == "9 scenes rendered at 128x128, seed 2"
    real = [render(scene, 128, 128) for scene in sample_scenes(9, 2)]
    sides = (SceneFeatures()(np.stack(images)) for images in (rendered["images"], real))
    assert scores["fid_r"] == pytest.approx(score_features(*sides, "r")["fid_r"], rel=1e-3)


def test_statistics_of_libraries_are_references(folders, inception_file, tmp_path, capsys, monkeypatch):
    """torch-fidelity's features of the real images give the scores of the images, its moments the FID alone: with a
    covariance of 4 in each dimension, of the real images by their singular values.
    """
    monkeypatch.setattr(library_statistics, "INCEPTION_SHA256", sha256_of_file(inception_file))
    for kind in ("images", "real"):  # Inception takes its time
        for path in sorted((folders / kind).iterdir())[3:]:
            path.unlink()
    legacy = ["--features", "inception", "--weights", str(inception_file), "--resize", "legacy"]
    expected = run(folders, *legacy, "--save-reference", str(tmp_path / "real.npz"), capsys=capsys)
    features = np.load(tmp_path / "real.npz")["features"]
    names = [tmp_path / f"real-inception-v3-compat-{kind}-2048.pt" for kind in ("features", "stat-fid")]
    torch.save(torch.from_numpy(features), names[0])
    torch.save({"mu": features.mean(axis=0) + 0.5, "sigma": 4 * np.eye(2048)}, names[1])
    found = run(folders, *legacy, "--reference", str(names[0]), capsys=capsys)
    real = ["--images", str(folders / "real"), "--reference", str(names[1])]
    alone = run(folders, *legacy, *real, capsys=capsys)
    for key in ("fid_r", "kid_r", "fid_r_se"):
        assert found[key] == pytest.approx(expected[key])
    roots = np.linalg.svd(features - features.mean(axis=0), compute_uv=False).astype(float) / 2**0.5
    assert alone["fid_r"] == pytest.approx(2048 * (0.5**2 + 4) + (roots**2 - 2 * 2 * roots).sum(), rel=1e-5)
    assert "kid_r" not in alone
    assert alone["protocol"]["reference"]["n"] is None
    for options, name, message in (
        (["--resize", "clean"], names[0], "its resizing is legacy, to 299x299, here it is clean"),
        (["--crops", "64:2"], names[0], "its crops is whole images, here it is 2 crops of 64x64"),
        (["--also", "precision_recall"], names[1], "precision_recall need the reference's features"),
    ):
        with pytest.raises(ValueError, match=message):
            run(folders, *legacy, *options, "--reference", str(name), capsys=capsys)


def test_two_methods_on_the_same_prompts(folders, capsys):
    """The second is the first with its noise: the difference is that of the two scores, with a smaller error."""
    (folders / "noisy").mkdir()
    rng = np.random.default_rng(0)
    for path in (folders / "images").iterdir():
        pixels = np.asarray(Image.open(path)).astype(float)
        noisy = np.clip(pixels + rng.normal(0, 30, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folders / "noisy" / path.name)
    alone = run(folders, "--images", str(folders / "noisy"), capsys=capsys)
    scores = run(folders, "--against", str(folders / "noisy"), capsys=capsys)
    found = scores["against"]["fid_r"]
    assert found["other"] == alone["fid_r"]
    assert found["difference"] == pytest.approx(scores["fid_r"] - alone["fid_r"])
    low, high = found["interval95"]
    assert (low + high) / 2 == pytest.approx(found["difference"])
    assert (high - low) / 2 == pytest.approx(t.ppf(0.975, 7) * found["se"])
    assert found["se"] < np.hypot(scores["fid_r_se"], alone["fid_r_se"])
    (folders / "noisy" / "07.png").rename(folders / "noisy" / "99.png")
    with pytest.raises(ValueError, match="hold images of different names"):
        run(folders, "--against", str(folders / "noisy"), capsys=capsys)


def test_more_scores(folders, capsys):
    scores = run(folders, "--also", "precision_recall", capsys=capsys)
    assert 0 <= scores["precision_r"] <= 1
    with pytest.raises(ValueError, match="kid_subsets needs 1000 images on each side, not 8, 12"):
        run(folders, "--also", "kid_subsets", capsys=capsys)
    with pytest.raises(SystemExit):
        run(folders, "--also", "beauty", capsys=capsys)
    assert "unknown metric 'beauty'" in capsys.readouterr().err
    for name in ("inception_score", "clip_score"):
        (folders / "images" / "00.txt").write_text("an image")
        with pytest.raises(ValueError, match="01.png has no caption|inception_score needs whole images"):
            run(folders, "--also", name, capsys=capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "/nowhere"], "no folder or tar file of images at /nowhere"),
        (["--reference", "/nowhere"], "no folder or tar file of images at /nowhere"),
        (["--reference", "/nowhere.npz"], "no reference at /nowhere.npz"),
        (["--crops", "129:3"], "crops of 129 pixels do not fit into images of 128"),
        (["--crops", "ten"], "unknown crops 'ten': choose from native, fidc1024, anyres or SIZE:COUNT"),
        (["--minimum-side", "500"], "has 0 images for whole images, of 12 those with 500 pixels"),
        (["--features", "inception", "--weights", "/nowhere.pth"], "no Inception weights at /nowhere.pth"),
    ],
)
def test_invalid_options_are_one_line(folders, capsys, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(folders, *options, capsys=capsys)


def test_damaged_image_and_mixed_sizes_raise(folders, capsys):
    path = folders / "images" / "03.png"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"cannot read image .*03.png"):
        run(folders, capsys=capsys)
    Image.new("RGB", (64, 64)).save(path)
    with pytest.raises(ValueError, match=r"03.png is 64x64, but .*00.png is 128x128"):
        run(folders, capsys=capsys)
