"""Scores in the form of metrics.json, reading them back, and what raises."""

import json

import numpy as np
import pytest

from eval import kid, uncertainty
from eval.crops import Crops
from eval.fid import features_to_fid
from eval.kid import features_to_kid
from eval.score import as_estimate, score_features
from tests.eval.helpers import features


@pytest.mark.parametrize("suffix", ["r", "b"])
def test_score_has_the_documented_keys_and_values(suffix) -> None:
    x, y = features(32, 16, seed=1).astype(np.float32), features(32, 16, seed=2).astype(np.float32)
    score = score_features(x, y, suffix)
    names = (f"fid_{suffix}", f"kid_{suffix}")
    assert set(score) == {f"{name}{part}" for name in names for part in ("", "_se", "_jackknife")}
    assert score[f"fid_{suffix}"] == pytest.approx(features_to_fid(x, y))
    assert score[f"kid_{suffix}"] == pytest.approx(features_to_kid(x, y, paired=suffix == "b"))
    assert score[f"fid_{suffix}_se"] > 0
    assert json.loads(json.dumps(score)) == score == score_features(x, y, suffix)


@pytest.mark.parametrize(
    ("n", "m", "suffix", "message"),
    [
        (2, 9, "r", "at least 3 generated images, not 2"),
        (0, 9, "r", "at least 3 generated images, not 0"),
        (9, 1, "r", "at least 2 reference images, not 1"),
        (9, 8, "b", "one image for each prompt, not 9 and 8"),
        (9, 9, "x", "suffix must be"),
    ],
)
def test_bad_input_raises_in_one_line(n: int, m: int, suffix, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        score_features(np.zeros((n, 4)), np.zeros((m, 4)), suffix)
    assert "\n" not in str(caught.value)


def test_different_dimensions_raise() -> None:
    with pytest.raises(ValueError, match="4 dimensions and the reference 5"):
        score_features(np.zeros((9, 4)), np.zeros((9, 5)), "r")


def test_base_samples_take_neither_crops_nor_more_metrics() -> None:
    x = features(40, 4)
    for options in ({"cropping": Crops(16, 2)}, {"also": ["precision_recall"]}, {"also": ["kid_subsets"]}):
        with pytest.raises(ValueError, match="base-size images are compared whole"):
            score_features(x, x, "b", **options)


def test_samples_equal_to_their_base_samples_score_zero_without_error() -> None:
    x = features(60, 4)
    score = score_features(x, x.copy(), "b")
    assert [score[key] for key in ("fid_b", "fid_b_se", "kid_b", "kid_b_se")] == pytest.approx([0] * 4, abs=1e-10)


def test_estimates_are_read_back_with_their_prompts() -> None:
    x, y = features(40, 4), features(40, 4, seed=1)
    ids = [f"prompt {i}" for i in range(20)]
    score = json.loads(json.dumps(score_features(x, y, "r", ids=ids, cropping=Crops(16, 2))))
    estimate = as_estimate(score, "pkid_r")
    assert (estimate.value, estimate.se) == pytest.approx((score["pkid_r"], score["pkid_r_se"]))
    assert score["pkid_r_jackknife"]["sizes"] == [2] * 20
    same = score_features(y, x, "r", ids=ids, cropping=Crops(16, 2))
    assert estimate.minus(as_estimate(same, "pkid_r"))[0] == pytest.approx(score["pkid_r"] - same["pkid_r"])
    other = score_features(y, x, "r", ids=ids[::-1], cropping=Crops(16, 2))
    with pytest.raises(ValueError, match="same prompts"):
        estimate.minus(as_estimate(other, "pkid_r"))


def test_estimates_of_older_versions_are_to_be_scored_again() -> None:
    with pytest.raises(ValueError, match="score the run again"):
        as_estimate({"kid_r": 1.0, "kid_r_jackknife": [[1.0, 1.1, 0.9], [1, 1, 1]]}, "kid_r")


def test_kid_of_too_many_rows_says_that_it_is_of_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of crops as of whole images; all pairs are there for the asking."""
    x, y = features(80, 4, seed=1), features(60, 4, seed=2, shift=0.1)
    assert "pkid_r_pairs" not in score_features(x, y, "r", cropping=Crops(16, 2))
    monkeypatch.setattr(uncertainty, "MAXIMUM_ROWS", 70)
    monkeypatch.setattr(kid, "SUBSET_SIZE", 20)
    score = score_features(x, y, "r", cropping=Crops(16, 2), also=["kid_all_pairs"])
    assert score["pkid_r_pairs"] == "100 subsets of 1000"
    assert score["pkid_all_pairs_r"] == pytest.approx(features_to_kid(x, y))
    assert score["pkid_all_pairs_r_se"] > 0
    assert score["pkid_r"] != score["pkid_all_pairs_r"]
