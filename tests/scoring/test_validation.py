"""The validation of scores: responses against values computed directly, verdicts on made-up responses, and counts of
copies against images with a known number.
"""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eval.corruptions import CORRUPTIONS
from eval.crops import WHOLE, Crops
from eval.fid import features_to_fid
from experiments import validate_metrics
from experiments.sampling.manifest import NAME, save_image
from experiments.scenes.rendered import rendered_images
from experiments.scenes.renderer.scene import render
from experiments.scenes.scene_counter import SceneCounter
from experiments.scenes.scene_features import DetailFeatures, SceneFeatures
from experiments.scoring import validation
from experiments.scoring.copy_counts import (
    agreement,
    count_components,
    count_copies,
    generated_images,
    rendered_with_copies,
)
from experiments.scoring.validation import (
    KINDS,
    WORSE,
    CorruptedImage,
    SceneScorer,
    copied,
    measure_responses,
    what_scores_see,
)


def test_corrupted_image_keeps_name_and_size_and_changes_its_digest():
    image = rendered_images(1, 5, 64, 96)[0]
    untouched, corrupted = CorruptedImage(image, "blur", 0), CorruptedImage(image, "blur", 3)
    np.testing.assert_array_equal(untouched.pixels(), image.pixels())
    assert (corrupted.pixels() != image.pixels()).any()
    assert (corrupted.name, corrupted.size()) == (image.name, (64, 96))
    variants = [untouched, corrupted, CorruptedImage(image, "noise", 3), CorruptedImage(image, "blur", 4)]
    assert len({each.digest() for each in variants}) == len({each.stamp() for each in variants}) == 4


def crop_features(extractor, cropping, images):
    """Of the crops of all images, extracted directly."""
    crops = [cropping.crops(image.pixels(), image.name, i) for i, image in enumerate(images)]
    return extractor(np.concatenate(crops))


def test_responses_are_differences_to_the_untouched_images(monkeypatch, tmp_path):
    monkeypatch.setattr(validation, "CORRUPTIONS", {"blur": CORRUPTIONS["blur"]})
    monkeypatch.setattr(validation, "KINDS", ("blur", "copies"))
    monkeypatch.setattr(validation, "COPIES", {1: 2, 2: 4})
    scenes, features = rendered_images(4, 5, 64, 64), SceneFeatures()
    others, detail, crops = rendered_images(8, 6, 64, 64), DetailFeatures(), Crops(32, 2)
    reference = features(np.stack([image.pixels() for image in others]))
    crop_reference = crop_features(detail, crops, others)
    scorer = SceneScorer(scenes, features, [WHOLE, crops], [reference, crop_reference], tmp_path)
    responses = measure_responses(scorer).set_index(["corruption", "step", "score"])
    assert len(responses) == (5 + 3) * len(WORSE)
    assert (responses.xs(0, level="step")["difference"] == 0).all()

    real = np.stack([image.pixels() for image in scenes])
    copies = np.stack([copied(image, 4).pixels() for image in scenes])
    repetition = responses.loc["copies", 2, "repetition"]
    assert repetition["strength"] == "4"
    assert repetition["difference"] == pytest.approx((SceneCounter()(copies) - SceneCounter()(real)).mean(), abs=1e-5)
    fid = [features_to_fid(features(images), reference) for images in (copies, real)]
    found = responses.loc["copies", 2, "fid_r"]
    assert found["value"] == pytest.approx(fid[0], rel=1e-4)
    assert found["difference"] == pytest.approx(fid[0] - fid[1], rel=1e-4)
    assert found["errors"] == pytest.approx(found["difference"] / found["difference_se"])
    blurred = crop_features(detail, crops, [CorruptedImage(image, "blur", 3) for image in scenes])
    crop_fid = [features_to_fid(x, crop_reference) for x in (blurred, crop_features(detail, crops, scenes))]
    assert responses.loc["blur", 3, "pfid_r"]["difference"] == pytest.approx(crop_fid[0] - crop_fid[1], rel=1e-3)
    seen = [features.predict(image.pixels()[None])["object"][0] == image.scene.object for image in scenes]
    assert responses.loc["blur", 0, "object_accuracy"]["value"] == pytest.approx(np.mean(seen))


def responses_of(name: str, errors: list[float], differences: list[float] | None = None) -> pd.DataFrame:
    """Responses of one score to one corruption, from step 0 on; a standard error of one by default."""
    rows = enumerate(zip(errors, differences or errors, strict=True))
    return pd.DataFrame(
        [{"corruption": "blur", "step": step, "score": name, "errors": e, "difference": d} for step, (e, d) in rows]
    )


def test_verdicts():
    cases = {
        "yes": ("fid_r", [0, 1, 4, 5, 9]),
        "uneven": ("fid_r", [0, 1, 4, 5, 4.5]),
        "late": ("fid_r", [0, 1, 2.9, 3.1, 4]),
        "no": ("fid_r", [0, 1, 1, 2, 2.9]),
    }
    for word, (name, errors) in cases.items():
        assert what_scores_see(responses_of(name, errors)).loc["blur", name] == word
    # A score that rewards damage does not see it; an accuracy becomes worse by falling.
    assert what_scores_see(responses_of("kid_r", [0, -4, -5, -6, -7])).loc["blur", "kid_r"] == "no"
    falling = responses_of("object_accuracy", [0, -2, -4, -5, -6])
    assert what_scores_see(falling).loc["blur", "object_accuracy"] == "yes"


def test_components_count_rendered_copies_at_any_size():
    for size, count in ((192, 16), (256, 16)):
        counts = count_copies(rendered_with_copies(count, size))
        assert (counts["components"] == counts["true"]).mean() >= 0.9
        assert agreement(counts, [("components", "true")])["rank_correlation"].iloc[0] > 0.98


def test_components_bridge_small_gaps_and_leave_out_specks_and_other_colours():
    image = np.full((100, 100, 3), 200, np.uint8)
    red, blue = (220, 30, 35), (40, 80, 220)
    image[10:20, 10:20] = red
    image[10:20, 21:31] = red  # one pixel apart: the same object
    image[60:75, 60:75] = red
    image[90:92, 5:7] = red  # a speck
    image[40:50, 40:50] = blue
    assert count_components(image, "red") == 2
    assert count_components(image, "blue") == 1
    assert count_components(image, "green") == 0


def test_agreement_by_hand():
    counts = pd.DataFrame(
        {"method": ["a", "a", "a", "b"], "x": [1, 2, 5, 4], "y": [1, 3, 4, 9], "z": [1.0, None, None, None]}
    )
    table = agreement(counts, [("x", "y"), ("x", "z")]).set_index(["method", "against"])
    assert table.loc[("a", "y"), "rank_correlation"] == pytest.approx(1)
    assert table.loc[("a", "y"), "mean_error"] == pytest.approx(0)
    assert table.loc[("a", "y"), "mean_absolute_error"] == pytest.approx(2 / 3)
    assert table.loc[("all", "y"), "mean_error"] == pytest.approx(-5 / 4)
    assert table.loc[("all", "z"), "n"] == 1
    assert ("b", "z") not in table.index


@pytest.fixture
def runs(tmp_path):
    """A runs folder with one run of two images, named and recorded as `experiments.run` does."""
    folder = tmp_path / "runs" / "scenes-direct-64x64-01234567"
    for index, image in enumerate(rendered_images(2, 9, 64, 64)):
        save_image(folder, image.pixels(), prompt_id=f"{index:06d}", prompt=image.scene.caption, seed=0)
    return tmp_path / "runs"


def test_images_of_runs_are_found_with_their_scenes(runs):
    found = generated_images(runs)
    expected = rendered_images(2, 9, 64, 64)
    assert [(each.method, each.resolution, each.image.name) for each in found] == [
        ("direct", "64x64", "000000"),
        ("direct", "64x64", "000001"),
    ]
    assert [each.scene.caption for each in found] == [image.scene.caption for image in expected]
    np.testing.assert_array_equal(found[0].image.pixels(), render(expected[0].scene, 64, 64))
    with pytest.raises(ValueError, match=r"holds no images of the scenes model"):
        generated_images(runs / "scenes-direct-64x64-01234567")
    manifest = runs / "scenes-direct-64x64-01234567" / NAME
    first, *rest = manifest.read_text().splitlines()
    other = json.dumps({k: v for k, v in json.loads(first).items() if k != "crc"} | {"prompt": "a photo of a cat"})
    manifest.write_text("\n".join([other, *rest]) + "\n")
    with pytest.raises(ValueError, match=r"'a photo of a cat' is not a caption of a scene"):
        generated_images(runs)


def test_command_writes_counts_beside_hand_counts(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(validate_metrics, "RENDERED", 16)
    hand = tmp_path / "hand.csv"
    hand.write_text("image,method,resolution,hand\n000001,direct,64x64,3\n")
    results = tmp_path / "results"
    options = ["--counts-only", "--size", "64", "--runs", str(runs), "--hand-counts", str(hand)]
    validate_metrics.main([*options, "--results", str(results)])
    counts = pd.read_csv(results / "copy_counts.csv", dtype={"image": str})
    assert counts["hand"].fillna(0).tolist() == [0, 3]
    assert Image.open(results / "copy_counts.png").width > 0
    assert (results / "copy_counts.md").read_text().strip() in capsys.readouterr().out


@pytest.mark.slow
def test_command_writes_responses_of_all_scores(tmp_path):
    options = ["--size", "64", "--images", "4", "--crops", "32:1", "--cache", str(tmp_path / "cache")]
    validate_metrics.main([*options, "--results", str(tmp_path)])
    responses = pd.read_csv(tmp_path / "metric_response.csv")
    assert set(responses["corruption"]) == set(KINDS)
    assert set(responses["score"]) == set(WORSE)
    text = (tmp_path / "metric_response.md").read_text()
    assert "swapped quadrants" in text
    assert "Copies in an image" in text
    assert Image.open(tmp_path / "metric_response.png").width > 1000
