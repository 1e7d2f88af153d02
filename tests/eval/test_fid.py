"""Fréchet distance against closed forms and three other implementations."""

import numpy as np
import pytest

from eval.fid import FixedReference, Stats, features_to_fid, features_to_stats, stats_to_fid
from tests.eval.helpers import features


def gaussian(mean: np.ndarray, cov: np.ndarray) -> Stats:
    return Stats(np.asarray(mean, dtype=float), np.asarray(cov, dtype=float), 10**6)


def test_stats_match_numpy() -> None:
    x = features(50, 7)
    stats = features_to_stats(x)
    np.testing.assert_allclose(stats.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(stats.cov, np.cov(x, rowvar=False), rtol=1e-10, atol=1e-14)
    assert stats.n == 50


def test_diagonal_gaussians_have_a_closed_form() -> None:
    rng = np.random.default_rng(0)
    means, variances = rng.normal(size=(2, 12)), rng.uniform(0.1, 3, size=(2, 12))
    expected = ((means[0] - means[1]) ** 2).sum() + ((np.sqrt(variances[0]) - np.sqrt(variances[1])) ** 2).sum()
    distance = stats_to_fid(gaussian(means[0], np.diag(variances[0])), gaussian(means[1], np.diag(variances[1])))
    assert distance == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [20, 500])
def test_distance_of_shifted_features_is_dim_times_shift_squared(n: int) -> None:
    x = features(n, 64)
    assert features_to_fid(x, x + 0.3) == pytest.approx(64 * 0.3**2, rel=1e-7)


@pytest.mark.parametrize("n", [20, 500])
def test_scaled_features_have_a_closed_form(n: int) -> None:
    x = features(n, 64)
    stats = features_to_stats(x)
    expected = stats.mean @ stats.mean * 0.25 + np.trace(stats.cov) * 0.25
    assert features_to_fid(x, 1.5 * x) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(("n", "dim"), [(2, 64), (40, 64), (64, 64), (65, 64), (300, 64)])
def test_distance_to_itself_is_zero(n: int, dim: int) -> None:
    x = features(n, dim)
    assert features_to_fid(x, x) == pytest.approx(0, abs=1e-9)
    assert stats_to_fid(features_to_stats(x), features_to_stats(x)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("n", "m"), [(40, 50), (40, 300), (300, 40), (300, 400), (64, 65)])
def test_symmetric_and_the_same_from_features_and_stats(n: int, m: int) -> None:
    x, y = features(n, 64, seed=1), features(m, 64, seed=2, shift=0.1)
    forward = features_to_fid(x, y)
    assert features_to_fid(y, x) == pytest.approx(forward, rel=1e-7)
    assert stats_to_fid(features_to_stats(x), features_to_stats(y)) == pytest.approx(forward, rel=1e-7)


@pytest.mark.parametrize("n", [40, 300])
def test_order_of_images_does_not_matter(n: int) -> None:
    x, y = features(n, 64, seed=1), features(200, 64, seed=2)
    shuffled = np.random.default_rng(0).permutation(x)
    assert features_to_fid(shuffled, y) == pytest.approx(features_to_fid(x, y), rel=1e-9)


def test_few_images_match_an_independent_eigenvalue_form() -> None:
    x, y = features(30, 64, seed=1), features(45, 64, seed=2)
    a, b = features_to_stats(x), features_to_stats(y)
    eigenvalues = np.linalg.eigvals(a.cov @ b.cov)
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.cov + b.cov)
    expected -= 2 * np.sqrt(eigenvalues.astype(complex)).real.sum()
    assert features_to_fid(x, y) == pytest.approx(expected, abs=1e-4)


def test_constant_dimension_is_ignored() -> None:
    x, y = features(200, 16, seed=1), features(200, 16, seed=2)
    x[:, 3] = y[:, 3] = 1.0
    keep = np.arange(16) != 3
    assert features_to_fid(x, y) == pytest.approx(features_to_fid(x[:, keep], y[:, keep]), rel=1e-6)


def test_fixed_reference_gives_the_same_distance() -> None:
    x, y = features(100, 32, seed=1), features(150, 32, seed=2)
    assert FixedReference(y).fid(x) == features_to_fid(x, y)
    assert FixedReference(y).fid_of_stats(features_to_stats(x)) == pytest.approx(features_to_fid(x, y), rel=1e-12)


@pytest.mark.parametrize("n", [1000, 40])
def test_parity_with_torch_fidelity(n: int) -> None:
    pytest.importorskip("torch_fidelity")
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    x, y = features(n, 64, seed=1), features(n + 20, 64, seed=2, shift=0.1)
    a, b = (fid_features_to_statistics(torch.from_numpy(side)) for side in (x, y))
    theirs = fid_statistics_to_metric(a, b, verbose=False)["frechet_inception_distance"]
    assert features_to_fid(x, y) == pytest.approx(theirs, rel=1e-6)


def test_parity_with_clean_fid() -> None:
    fid = pytest.importorskip("cleanfid.fid")
    import scipy

    if tuple(int(part) for part in scipy.__version__.split(".")[:2]) >= (1, 18):
        pytest.skip("clean-fid's matrix square root needs scipy < 1.18")
    x, y = features(1000, 64, seed=1), features(900, 64, seed=2, shift=0.1)
    assert features_to_fid(x, y) == pytest.approx(fid.fid_from_feats(x, y), rel=1e-6)


def test_parity_with_torchmetrics() -> None:
    image = pytest.importorskip("torchmetrics.image.fid")
    import torch

    x, y = features(1000, 64, seed=1), features(900, 64, seed=2, shift=0.1)
    passing_through = torch.nn.Flatten()
    passing_through.register_buffer("num_features", torch.tensor(64))  # where torchmetrics looks for it
    metric = image.FrechetInceptionDistance(feature=passing_through).set_dtype(torch.float64)
    metric.update(torch.from_numpy(y)[:, None, None], real=True)
    metric.update(torch.from_numpy(x)[:, None, None], real=False)
    assert features_to_fid(x, y) == pytest.approx(float(metric.compute()), rel=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((1, 4)), np.zeros((5, 4)), "at least 2 images"),
        (np.zeros((5, 4)), np.zeros((0, 4)), "at least 2 images"),
        (np.zeros((5, 4)), np.zeros((5, 3)), "4 and 3 dimensions"),
        (np.zeros(5), np.zeros((5, 4)), r"must be \(n, dim\)"),
        (np.full((5, 4), np.nan), np.zeros((5, 4)), "image 0 are not finite"),
    ],
)
def test_bad_features_are_refused(x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        features_to_fid(x, y)
