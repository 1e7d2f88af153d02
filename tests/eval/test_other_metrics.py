"""Metrics beside FID and KID against explicit loops, closed forms and known truths."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch_fidelity import metric_kid
from torch_fidelity.metric_isc import isc_features_to_metric

from eval import other_metrics
from eval.fid import features_to_fid
from eval.kid import features_to_kid
from eval.other_metrics import clip_scores, fid_at_infinity, inception_score, kid_of_subsets, precision_recall
from eval.score import ALSO, score_features
from eval.uncertainty import Estimate, estimate_all
from tests.eval.helpers import features


def test_kid_of_subsets_is_the_mean_over_subsets_and_close_to_full_kid(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch-fidelity draws the subsets and computes their distances."""
    assert (other_metrics.SUBSETS, other_metrics.SUBSET_SIZE) == (100, 1000)
    monkeypatch.setattr(other_metrics, "SUBSET_SIZE", 200)
    x, y = features(300, 8, seed=1), features(240, 8, seed=2, shift=0.2)
    mean, deviation = kid_of_subsets(x, y)
    sides = (torch.from_numpy(side) for side in (x, y))
    theirs = metric_kid.kid_features_to_metric(*sides, kid_subsets=100, kid_subset_size=200, verbose=False)
    assert mean == pytest.approx(theirs[metric_kid.KEY_METRIC_KID_MEAN], rel=1e-9)
    assert deviation == pytest.approx(theirs[metric_kid.KEY_METRIC_KID_STD], rel=1e-6)
    assert mean == pytest.approx(features_to_kid(x, y), rel=0.05)


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


def test_inception_score_equals_torch_fidelity_and_keeps_its_splits_without_some_images() -> None:
    logits = np.random.default_rng(0).normal(size=(203, 7)) * 2
    expected = isc_features_to_metric(torch.from_numpy(logits))
    found = inception_score(logits)
    assert found == pytest.approx(tuple(expected[f"inception_score_{part}"] for part in ("mean", "std")), rel=1e-12)
    order = np.random.RandomState(2020).permutation(203)
    first_split = order[: 203 // 10]
    without = inception_score(logits, np.setdiff1d(np.arange(203), first_split))[0]
    only = inception_score(logits, first_split)[0]
    assert 9 * without + only == pytest.approx(10 * found[0])


def fid_at_infinity_of(seed: int) -> Estimate:
    x, y = np.random.default_rng(seed).normal(0.3, 1.2, (100, 4)), np.random.default_rng(10**6).normal(size=(200, 4))
    return estimate_all(lambda rows: {"score": fid_at_infinity(x, y, rows)}, 100)["score"]


def inception_score_of(seed: int) -> Estimate:
    logits = 2 * np.random.default_rng(seed).normal(size=(200, 10))
    return estimate_all(lambda rows: {"score": inception_score(logits, rows)[0]}, 200)["score"]


@pytest.mark.parametrize(("estimate", "draws"), [(fid_at_infinity_of, 20), (inception_score_of, 40)])
def test_error_is_that_of_the_data_and_not_of_random_subsets(estimate: Callable[[int], Estimate], draws: int) -> None:
    found = [estimate(seed) for seed in range(draws)]
    ratio = np.median([e.se for e in found]) / np.std([e.value for e in found], ddof=1)
    assert 1 / 1.5 < ratio < 1.5


def test_subsets_of_fid_at_infinity_have_at_least_twice_as_many_images_as_dimensions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []

    def recording(x: np.ndarray, y: np.ndarray) -> float:
        sizes.extend((len(x), len(y)))
        return features_to_fid(x, y)

    monkeypatch.setattr(other_metrics, "features_to_fid", recording)
    fid_at_infinity(features(32, 8), features(50, 8, seed=1))
    assert (min(sizes), max(sizes)) == (16, 50)


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
def test_requested_metrics_are_added_with_their_error(
    name: str, keys: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert name in ALSO
    monkeypatch.setattr(other_metrics, "SUBSET_SIZE", 40)
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
        (lambda: fid_at_infinity(features(31, 8), features(40, 8)), "needs 32 images on each side .*not 31"),
        (lambda: kid_of_subsets(features(1200, 2), features(999, 2)), "needs 1000 images on each side, not 1200, 999"),
        (lambda: score_features(x, x, "r", also=["fd"]), "unknown metric 'fd': choose from precision_recall"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
