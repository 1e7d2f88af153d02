"""Scores in the form of metrics.json, and what is refused."""

import json

import numpy as np
import pytest

from eval.frechet import features_to_fid
from eval.kid import features_to_kid
from eval.score import score_features
from tests.eval.helpers import features


@pytest.mark.parametrize("suffix", ["r", "b"])
def test_score_has_the_documented_keys_and_values(suffix) -> None:
    x, y = features(32, 16, seed=1).astype(np.float32), features(50, 16, seed=2).astype(np.float32)
    score = score_features(x, y, suffix)
    names = (f"fid_{suffix}", f"kid_{suffix}")
    assert set(score) == {f"{name}{part}" for name in names for part in ("", "_se", "_jackknife")}
    assert score[f"fid_{suffix}"] == pytest.approx(features_to_fid(x, y))
    assert score[f"kid_{suffix}"] == pytest.approx(features_to_kid(x, y))
    assert score[f"fid_{suffix}_se"] > 0
    assert json.loads(json.dumps(score)) == score == score_features(x, y, suffix)


@pytest.mark.parametrize(
    ("n", "m", "suffix", "message"),
    [
        (2, 9, "r", "at least 3 generated images, not 2"),
        (0, 9, "r", "at least 3 generated images, not 0"),
        (9, 1, "b", "at least 2 reference images, not 1"),
        (9, 9, "x", "suffix must be"),
    ],
)
def test_bad_input_raises_in_one_line(n: int, m: int, suffix, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        score_features(np.zeros((n, 4)), np.zeros((m, 4)), suffix)
    assert "\n" not in str(caught.value)


def test_different_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="4 dimensions and the reference 5"):
        score_features(np.zeros((9, 4)), np.zeros((9, 5)), "r")
