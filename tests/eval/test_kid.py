"""KID against a slow loop over pairs and three other implementations."""

from itertools import permutations

import numpy as np
import pytest

from eval.kid import SUBSET_SIZE, SUBSETS, draw_subsets, features_to_kid, group_pairs
from tests.eval.helpers import features


def slow_kid(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    xx = np.mean([kernel(a, b) for a, b in permutations(x, 2)])
    yy = np.mean([kernel(a, b) for a, b in permutations(y, 2)])
    return float(xx + yy - 2 * np.mean([kernel(a, b) for a in x for b in y]))


@pytest.mark.parametrize(("n", "m"), [(2, 2), (7, 12), (12, 7)])
def test_equals_a_loop_over_pairs(n: int, m: int) -> None:
    x, y = features(n, 5, seed=1), features(m, 5, seed=2, shift=0.2)
    assert features_to_kid(x, y) == pytest.approx(slow_kid(x, y), rel=1e-10)
    assert features_to_kid(y, x) == pytest.approx(slow_kid(x, y), rel=1e-10)


def test_chunks_and_order_do_not_matter() -> None:
    x, y = features(60, 16, seed=1), features(41, 16, seed=2, shift=0.2)
    whole = features_to_kid(x, y)
    assert features_to_kid(x, y, chunk=7) == pytest.approx(whole, rel=1e-10)
    assert features_to_kid(np.random.default_rng(0).permutation(x), y) == pytest.approx(whole, rel=1e-10)


def test_unbiased_and_not_clipped_for_equal_distributions() -> None:
    values = [features_to_kid(features(30, 8, seed=2 * i), features(30, 8, seed=2 * i + 1)) for i in range(300)]
    assert min(values) < 0
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(300)


def third_moments(mean: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """(dim, dim, dim) E[x_i x_j x_k] of a Gaussian."""
    one = np.einsum("i,jk->ijk", mean, cov)
    return np.einsum("i,j,k->ijk", mean, mean, mean) + one + one.transpose(1, 0, 2) + one.transpose(2, 1, 0)


def expected_kernel(mean: np.ndarray, cov: np.ndarray, other_mean: np.ndarray, other_cov: np.ndarray) -> float:
    """E (x·y / d + 1)³ of independent Gaussian x and y, from the moments of x·y."""
    d = len(mean)
    second = (cov + np.outer(mean, mean)) * (other_cov + np.outer(other_mean, other_mean))
    third = third_moments(mean, cov) * third_moments(other_mean, other_cov)
    return float(1 + 3 * mean @ other_mean / d + 3 * second.sum() / d**2 + third.sum() / d**3)


@pytest.mark.parametrize("correlation", [0.0, 0.8, 1.0])
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.4, 1.3)])
def test_paired_sides_give_the_squared_mmd_of_their_distributions(
    correlation: float, shift: float, scale: float
) -> None:
    """x_i = shift + scale · (a Gaussian that correlates with y_i); the MMD depends on the two distributions only."""
    rng = np.random.default_rng(0)
    root = np.array([[1.0, 0.0, 0.0], [0.3, 0.8, 0.0], [0.0, 0.5, 0.6]])
    mean = np.array([0.2, -0.1, 0.3])
    values = []
    for _ in range(1000):
        y, new = rng.normal(size=(2, 20, 3))
        x = scale * (correlation * y + np.sqrt(1 - correlation**2) * new) @ root.T + mean + shift
        values.append(features_to_kid(x, y @ root.T + mean, paired=True))
    q = (mean, root @ root.T)
    p = (mean + shift, scale**2 * root @ root.T)
    truth = expected_kernel(*p, *p) + expected_kernel(*q, *q) - 2 * expected_kernel(*p, *q)
    assert abs(np.mean(values) - truth) <= 3 * np.std(values) / np.sqrt(len(values))
    if correlation == 1 and shift == 0:
        assert set(values) == {0.0}


def test_paired_equals_a_loop_over_pairs_of_different_prompts() -> None:
    x, y = features(9, 5, seed=1), features(9, 5, seed=2, shift=0.2)
    k = (np.einsum("id,jd->ij", np.vstack([x, y]), np.vstack([x, y])) / 5 + 1) ** 3
    terms = [k[i, j] + k[9 + i, 9 + j] - k[i, 9 + j] - k[j, 9 + i] for i, j in permutations(range(9), 2)]
    assert features_to_kid(x, y, paired=True) == pytest.approx(np.mean(terms), rel=1e-10)
    assert features_to_kid(x, y, paired=True, chunk=4) == pytest.approx(np.mean(terms), rel=1e-10)
    with pytest.raises(ValueError, match="one image for each prompt, not 9 and 8"):
        features_to_kid(x, y[:8], paired=True)


def test_float32_features_give_the_value_of_their_float64_copy() -> None:
    x, y = (features(90, 16, seed=seed, shift=0.2 * seed).astype(np.float32) for seed in (1, 2))
    expected = features_to_kid(x.astype(np.float64), y.astype(np.float64))
    assert features_to_kid(x, y, chunk=32) == pytest.approx(expected, rel=1e-10)


def test_pairs_of_a_group_equal_a_loop() -> None:
    x, groups = features(12, 5, seed=1), [np.array([0, 3, 4]), np.array([7]), np.array([], dtype=int)]
    k = (x @ x.T / 5 + 1) ** 3
    expected = [sum(k[i, j] for i, j in permutations(group, 2)) for group in groups]
    assert group_pairs(x, groups) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(40_000, 50_500), (40_000, 900), (1_000, 35_000)])
def test_subsets_use_all_rows_about_equally_often(n: int, m: int) -> None:
    drawn = list(draw_subsets(n, m))
    assert len(drawn) == SUBSETS
    for side, size in ((0, n), (1, m)):
        counts = np.zeros(size, dtype=int)
        for subset in drawn:
            assert len(set(subset[side])) == len(subset[side]) == min(SUBSET_SIZE, size)
            counts[subset[side]] += 1
        assert counts.max() - counts.min() <= (1 if size % SUBSET_SIZE == 0 or size < SUBSET_SIZE else 2)


def test_subsets_are_the_same_again_and_shared_by_pairs() -> None:
    for (rows, others), (again, _), (left, right) in zip(
        draw_subsets(5000, 6000), draw_subsets(5000, 6000), draw_subsets(5000, 5000, paired=True), strict=True
    ):
        np.testing.assert_array_equal(rows, again)
        np.testing.assert_array_equal(left, right)
        assert not np.array_equal(rows, others)
    first, other = (next(iter(draw_subsets(5000, 5000, seed=seed)))[0] for seed in (0, 1))
    assert not np.array_equal(first, other)


N = 200


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    return features(N, 64, seed=1), features(N, 64, seed=2, shift=0.2)


def test_parity_with_clean_fid(pair: tuple[np.ndarray, np.ndarray]) -> None:
    fid = pytest.importorskip("cleanfid.fid")
    theirs = fid.kernel_distance(*pair, num_subsets=1, max_subset_size=N)
    assert features_to_kid(*pair) == pytest.approx(theirs, rel=1e-9)


def test_parity_with_torch_fidelity(pair: tuple[np.ndarray, np.ndarray]) -> None:
    metric_kid = pytest.importorskip("torch_fidelity.metric_kid")
    import torch

    x, y = (torch.from_numpy(side) for side in pair)
    theirs = metric_kid.kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=N, verbose=False)
    assert features_to_kid(*pair) == pytest.approx(theirs[metric_kid.KEY_METRIC_KID_MEAN], rel=1e-9)


def test_parity_with_torchmetrics(pair: tuple[np.ndarray, np.ndarray]) -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    import torch

    x, y = (torch.from_numpy(side) for side in pair)
    metric = kid.KernelInceptionDistance(feature=torch.nn.Flatten(), subsets=1, subset_size=N)
    metric = metric.set_dtype(torch.float64)
    metric.update(y[:, None, None], real=True)
    metric.update(x[:, None, None], real=False)
    assert features_to_kid(*pair) == pytest.approx(float(metric.compute()[0]), rel=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((1, 4)), np.zeros((5, 4)), "at least 2 images"),
        (np.zeros((5, 4)), np.zeros((5, 3)), "4 and 3 dimensions"),
        (np.zeros((5, 4)), np.full((5, 4), np.inf), "not finite"),
    ],
)
def test_bad_features_raise(x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        features_to_kid(x, y)
