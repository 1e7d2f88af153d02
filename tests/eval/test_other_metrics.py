"""Metrics beside FID and KID against explicit loops, closed forms and known truths."""

import numpy as np
import pytest
import torch

from eval import other_metrics
from eval.kid import features_to_kid
from eval.other_metrics import clip_scores, fid_at_infinity, inception_score, kid_of_subsets, precision_recall
from eval.score import ALSO, score_features
from tests.eval.helpers import features


def test_kid_of_subsets_is_the_mean_over_subsets_and_close_to_full_kid(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (other_metrics.SUBSETS, other_metrics.SUBSET_SIZE) == (100, 1000)
    monkeypatch.setattr(other_metrics, "SUBSET_SIZE", 200)
    x, y = features(300, 8, seed=1), features(240, 8, seed=2, shift=0.2)
    mean, deviation = kid_of_subsets(x, y)
    rng = np.random.RandomState(2020)
    singles = []
    for _ in range(100):
        rows, others = rng.choice(300, 200, replace=False), rng.choice(240, 200, replace=False)
        singles.append(features_to_kid(x[rows], y[others]))
    assert mean == pytest.approx(np.mean(singles), rel=1e-9)
    assert deviation == pytest.approx(np.std(singles), rel=1e-6)
    assert mean == pytest.approx(features_to_kid(x, y), rel=0.05)


def test_few_images_form_one_subset() -> None:
    x, y = features(40, 8, seed=1), features(40, 8, seed=2)
    mean, deviation = kid_of_subsets(x, y)
    assert mean == pytest.approx(features_to_kid(x, y), rel=1e-9)
    assert deviation == pytest.approx(0, abs=1e-12)


def slow_coverage(points: np.ndarray, centres: np.ndarray) -> float:
    """Share of points within the third-neighbour ball of some centre."""
    distances = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    radii = np.sort(distances, axis=1)[:, 3]
    near = np.linalg.norm(points[:, None] - centres[None], axis=-1) <= radii
    return float(near.any(axis=1).mean())


def test_precision_and_recall_are_not_swapped() -> None:
    real = features(120, 3, seed=1)
    narrow = features(80, 3, seed=2) * 0.3 + real.mean(axis=0)  # realistic but little variety
    found = precision_recall(narrow, real)
    assert found["precision"] == pytest.approx(slow_coverage(narrow, real), abs=1e-6)
    assert found["recall"] == pytest.approx(slow_coverage(real, narrow), abs=1e-6)
    assert found["precision"] > found["recall"] + 0.3


def test_inception_score_of_known_predictions() -> None:
    """Four: certain predictions, four classes equally often (exp of their entropy). One: always the same class."""
    certain = 60.0 * np.tile(np.eye(4), (100, 1))
    assert inception_score(certain)[0] == pytest.approx(4, rel=0.05)  # splits are random
    assert inception_score(60.0 * np.tile(np.eye(4)[:1], (100, 1))) == pytest.approx((1, 0))


def test_clip_scores_are_clipped_cosines() -> None:
    images, texts = features(6, 5, seed=1), features(6, 5, seed=2)
    cosines = torch.nn.functional.cosine_similarity(torch.from_numpy(images), torch.from_numpy(texts)).numpy()
    np.testing.assert_allclose(clip_scores(images, texts), 100 * np.clip(cosines, 0, None), atol=1e-9)
    assert (cosines < 0).any()


def test_fid_at_infinity_is_closer_to_the_truth_than_fid() -> None:
    """Two Gaussians in 32 dimensions at a known distance: 32 * 0.05^2 plus a change of scale."""
    truth = 32 * 0.05**2 + 32 * 0.05**2
    plain, extrapolated = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(0.05, 1.05, (400, 32)), rng.normal(0, 1, (400, 32))
        plain.append(score_features(x, y, "r")["fid_r"])
        extrapolated.append(fid_at_infinity(x, y))
    assert np.mean(plain) > 3 * truth
    assert abs(np.mean(extrapolated) - truth) < 0.15 * (np.mean(plain) - truth)
    assert fid_at_infinity(x, y) == fid_at_infinity(x, y)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("precision_recall", {"precision_r", "recall_r"}),
        ("fid_infinity", {"fid_infinity_r"}),
        ("kid_subsets", {"kid_subsets_r", "kid_subsets_r_std"}),
        ("inception_score", set()),  # needs no reference: computed by `score_alone`
    ],
)
def test_requested_metrics_are_added_with_their_error(name: str, keys: set[str]) -> None:
    assert name in ALSO
    x, y = features(60, 8, seed=1), features(50, 8, seed=2)
    plain, more = score_features(x, y, "r"), score_features(x, y, "r", also=[name])
    assert keys <= set(more)
    added = {key.removesuffix("_se").removesuffix("_jackknife") for key in set(more) - set(plain)}
    assert added == keys
    assert {key: more[key] for key in plain} == plain
    if name in ("precision_recall", "fid_infinity"):
        assert all(more[f"{key}_se"] > 0 for key in keys)


def test_too_few_images_and_unknown_metrics_raise() -> None:
    x = features(8, 8)
    for call, message in [
        (lambda: precision_recall(x[:4], x), "need 5 images on each side, not 4, 8"),
        (lambda: inception_score(x), "at least 10 images, not 8"),
        (lambda: fid_at_infinity(x, x), "needs 16 images on each side with 8 dimensions, not 8"),
        (lambda: score_features(x, x, "r", also=["fd"]), "unknown metric 'fd': choose from precision_recall"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
