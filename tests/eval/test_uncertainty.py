"""Standard errors: textbook cases, a slow jackknife, and the true spread over fresh draws."""

import numpy as np
import pytest

from eval.frechet import features_to_fid
from eval.kid import features_to_kid
from eval.uncertainty import fid_with_se, jackknife_se, kid_with_se, prompt_groups
from tests.eval.helpers import features


@pytest.mark.parametrize(("n", "count"), [(3, 3), (19, 19), (20, 20), (64, 20), (1000, 20)])
def test_groups_are_a_fixed_partition(n: int, count: int) -> None:
    groups = prompt_groups(n)
    assert len(groups) == count
    assert sorted(np.concatenate(groups)) == list(range(n))
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    for again, group in zip(prompt_groups(n), groups, strict=True):
        np.testing.assert_array_equal(again, group)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_images_for_an_error(n: int) -> None:
    with pytest.raises(ValueError, match=f"at least 3 images, not {n}"):
        prompt_groups(n)


def test_one_group_is_no_jackknife() -> None:
    with pytest.raises(ValueError, match="at least 2 groups"):
        prompt_groups(10, count=1)


def test_leave_one_out_of_a_mean_is_the_textbook_error() -> None:
    x = np.random.default_rng(0).normal(size=25)
    without = [np.delete(x, i).mean() for i in range(25)]
    assert jackknife_se(x.mean(), without, [1] * 25) == pytest.approx(x.std(ddof=1) / 5, rel=1e-10)


def test_bias_of_one_over_n_is_not_mistaken_for_noise() -> None:
    sizes = [3, 3, 4, 4]
    n = sum(sizes)
    assert jackknife_se(5 + 600 / n, [5 + 600 / (n - k) for k in sizes], sizes) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("n", "dim"), [(3, 16), (30, 64), (150, 32), (66, 64)])
def test_shortcuts_equal_recomputing_without_each_group(n: int, dim: int) -> None:
    x, y = features(n, dim, seed=1), features(200, dim, seed=2, shift=0.1)
    groups = prompt_groups(n)
    sizes = [len(group) for group in groups]
    for fast, slow in [(fid_with_se, features_to_fid), (kid_with_se, features_to_kid)]:
        score, se = fast(x, y)
        assert score == pytest.approx(slow(x, y), rel=1e-12)
        without = [slow(np.delete(x, group, axis=0), y) for group in groups]
        assert se == pytest.approx(jackknife_se(score, without, sizes), rel=1e-5)


@pytest.mark.parametrize(("n", "dim"), [(60, 8), (40, 64)])
@pytest.mark.parametrize("with_se", [fid_with_se, kid_with_se])
def test_error_is_the_spread_over_fresh_draws(with_se, n: int, dim: int) -> None:
    y = features(300, dim, seed=10**6)
    draws = [with_se(features(n, dim, seed=i, shift=0.3), y) for i in range(60)]
    spread = np.std([score for score, _ in draws], ddof=1)
    typical = np.median([se for _, se in draws])
    assert 0.7 < typical / spread < 1.45
