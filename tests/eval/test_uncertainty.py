"""Standard errors: textbook cases, a slow jackknife, and the true spread over new samples."""

import itertools
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from scipy import stats

from eval import kid, uncertainty
from eval.fid import features_to_fid
from eval.kid import features_to_kid
from eval.uncertainty import (
    Estimate,
    estimate_all,
    estimate_fid,
    estimate_kid,
    estimate_mean,
    interval_of,
    jackknife_se,
    mean_of,
    prompt_groups,
)
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
def test_too_few_images_for_a_standard_error_raise(n: int) -> None:
    with pytest.raises(ValueError, match=f"at least 3 images, not {n}"):
        prompt_groups(n)


def test_one_group_raises() -> None:
    with pytest.raises(ValueError, match="at least 2 groups"):
        prompt_groups(10, count=1)


def test_leave_one_out_of_a_mean_gives_the_textbook_error() -> None:
    x = np.random.default_rng(0).normal(size=25)
    without = [np.delete(x, i).mean() for i in range(25)]
    assert jackknife_se(x.mean(), without, [1] * 25) == pytest.approx(x.std(ddof=1) / 5, rel=1e-10)


def test_bias_of_one_over_n_cancels() -> None:
    sizes = [3, 3, 4, 4]
    n = sum(sizes)
    assert jackknife_se(5 + 600 / n, [5 + 600 / (n - k) for k in sizes], sizes) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(("n", "dim"), [(3, 16), (30, 64), (150, 32), (66, 64)])
def test_shortcuts_equal_recomputing_without_each_group(n: int, dim: int, paired: bool) -> None:
    x, y = features(n, dim, seed=1), features(n if paired else 200, dim, seed=2, shift=0.1)
    groups = prompt_groups(n)
    sizes = [len(group) for group in groups]
    cases: list[tuple[Callable[..., Estimate], Callable[..., float]]] = [
        (estimate_fid, features_to_fid),
        (estimate_kid, partial(features_to_kid, paired=paired)),
    ]
    for fast, slow in cases:
        estimate = fast(x, y, paired=paired)
        score = estimate.value
        assert score == pytest.approx(slow(x, y), rel=1e-12)
        without = [slow(np.delete(x, g, axis=0), np.delete(y, g, axis=0) if paired else y) for g in groups]
        assert estimate.without == pytest.approx(without, rel=1e-5)
        assert estimate.se == pytest.approx(jackknife_se(score, without, sizes), rel=1e-5)


@pytest.mark.parametrize(("n", "dim"), [(150, 32), (30, 64)])
def test_identical_sides_have_no_distance_and_no_error(n: int, dim: int) -> None:
    x = features(n, dim)
    fid, kid = estimate_fid(x, x.copy(), paired=True), estimate_kid(x, x.copy(), paired=True)
    assert (fid.value, fid.se) == pytest.approx((0, 0), abs=1e-10)
    assert (kid.value, kid.se) == (0, 0)


@pytest.mark.parametrize(("n", "dim"), [(60, 8), (40, 64)])
@pytest.mark.parametrize("estimate", [estimate_fid, estimate_kid])
def test_paired_error_is_the_spread_over_new_prompts_of_both_sides(estimate, n: int, dim: int) -> None:
    """The first is a mild change of the second; leaving prompts out of one side only gives several times the error."""
    found, one_sided = [], []
    for i in range(60):
        y = features(n, dim, seed=i)
        x = y * 1.05 + 0.1 + 0.05 * features(n, dim, seed=1000 + i)
        found.append(estimate(x, y, paired=True))
        one_sided.append(estimate(x, y).se)
    spread = np.std([e.value for e in found], ddof=1)
    assert 0.6 < np.median([e.se for e in found]) / spread < 1.6
    assert np.median(one_sided) > 2 * spread


@pytest.mark.parametrize(("n", "dim"), [(60, 8), (40, 64)])
@pytest.mark.parametrize("estimate", [estimate_fid, estimate_kid])
def test_standard_error_is_the_spread_over_new_samples(estimate, n: int, dim: int) -> None:
    y = features(300, dim, seed=10**6)
    estimates = [estimate(features(n, dim, seed=i, shift=0.3), y) for i in range(60)]
    spread = np.std([e.value for e in estimates], ddof=1)
    typical = np.median([e.se for e in estimates])
    assert 0.7 < typical / spread < 1.45


@pytest.mark.parametrize("estimate", [estimate_fid, estimate_kid])
def test_paired_standard_error_is_the_spread_of_differences_over_new_prompts(estimate) -> None:
    """Two methods with similar images per prompt: the difference is far more precise than either score."""
    y = features(300, 8, seed=10**6)
    differences, errors, singles = [], [], []
    for i in range(60):
        prompts = features(60, 8, seed=i, shift=0.3)
        other = prompts * 1.02 + 0.05 * features(60, 8, seed=1000 + i)
        first, second = estimate(prompts, y), estimate(other, y)
        difference, error = first.minus(second)
        assert difference == pytest.approx(first.value - second.value)
        differences.append(difference)
        errors.append(error)
        singles.append(first.se)
    assert 0.6 < np.median(errors) / np.std(differences, ddof=1) < 1.6
    assert np.median(errors) < 0.5 * np.median(singles)


@pytest.fixture
def capped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Subsets of 100 rows, 100 of them, from 400 rows on."""
    monkeypatch.setattr(uncertainty, "MAXIMUM_ROWS", 400)
    monkeypatch.setattr(kid, "SUBSET_SIZE", 100)


@pytest.mark.parametrize("paired", [False, True])
def test_kid_of_many_rows_is_the_mean_over_subsets_with_and_without_each_group(
    capped, monkeypatch: pytest.MonkeyPatch, paired: bool
) -> None:
    monkeypatch.setattr(kid, "SUBSETS", 10)
    x, y = features(450, 8, seed=1), features(450, 8, seed=2, shift=0.1)
    groups = prompt_groups(450)
    singles, without = [], []
    for rows, others in kid.draw_subsets(450, 450, paired=paired):
        singles.append(features_to_kid(x[rows], y[others], paired=paired))
        kept = [~np.isin(rows, group) for group in groups]
        sides = [(x[rows[k]], y[others[k] if paired else others]) for k in kept]
        without.append([features_to_kid(*side, paired=paired) for side in sides])
    found = estimate_kid(x, y, paired=paired)
    assert found.value == pytest.approx(np.mean(singles), rel=1e-10)
    assert found.without == pytest.approx(np.mean(without, axis=0), rel=1e-8)
    assert estimate_kid(x, y, paired=paired, all_pairs=True).value == pytest.approx(
        features_to_kid(x, y, paired=paired), rel=1e-10
    )
    assert found.value != estimate_kid(x, y, paired=paired, all_pairs=True).value


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_kid_of_subsets_is_close_to_that_of_all_pairs_and_knows_its_error(capped, shift: float) -> None:
    """Its distance from all pairs is small beside the standard error, which is the spread over new samples."""
    y = features(500, 8, seed=10**6)
    whole, subsets = [], []
    for i in range(16):
        x = features(450, 8, seed=i, shift=shift)
        whole.append(features_to_kid(x, y))
        subsets.append(estimate_kid(x, y))
    typical = np.median([each.se for each in subsets])
    assert np.std([each.value - w for each, w in zip(subsets, whole, strict=True)]) < 0.5 * typical
    assert 0.7 < typical / np.std([each.value for each in subsets], ddof=1) < 1.45


def test_large_features_are_not_copied() -> None:
    """Features of 20 MB on each side, mapped from a file, are scored in less than that; they were 40 MB in float64."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(20_000, 256)).astype(np.float32) + shift for shift in (0, 0.1))
    expected = features_to_fid(x.astype(np.float64), y.astype(np.float64))
    tracemalloc.start()
    try:
        found = estimate_fid(x, y)
        assert len(list(estimate_kid(x[:3000], y[:3000]).without)) == 20
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert peak < 35e6


def test_mean_has_the_textbook_error() -> None:
    x = np.random.default_rng(0).normal(size=15)
    assert estimate_mean(x).value == pytest.approx(x.mean())
    assert estimate_mean(x).se == pytest.approx(x.std(ddof=1) / np.sqrt(15))


def test_differences_need_the_same_prompts_in_the_same_groups() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 40, 3))
    ids = [f"prompt {i}" for i in range(40)]
    first = estimate_kid(x, y, ids=ids)
    assert first.minus(estimate_kid(x, y, ids=ids)) == (0, 0)
    others = [
        estimate_kid(x, y),
        estimate_kid(x, y, ids=ids[::-1]),
        estimate_kid(x, y, ids=[*ids[:-1], "another"]),
        estimate_kid(x, y, ids=ids, groups=prompt_groups(40, seed=1)),  # the same sizes
        estimate_kid(x, y, ids=ids, groups=prompt_groups(40, count=10)),
    ]
    for other in others:
        with pytest.raises(ValueError, match="same prompts in the same order"):
            first.minus(other)
    with pytest.raises(ValueError, match="39 ids for 40 images"):
        estimate_kid(x, y, ids=ids[1:])


def test_all_estimates_of_a_set_carry_the_same_key() -> None:
    x = features(40, 3)
    ids = [str(i + 7) for i in range(40)]
    found = [
        estimate_fid(x, x[:30], ids=ids),
        estimate_kid(x, x, ids=ids, paired=True),
        estimate_mean(x[:, 0], ids=ids),
        estimate_all(lambda rows: {"mean": float(x[rows].mean())}, 40, ids=ids)["mean"],
    ]
    assert len({estimate.key for estimate in found}) == 1


def test_interval_is_that_of_students_t() -> None:
    """Of the mean of 15 values, one in each group."""
    x = np.random.default_rng(0).normal(size=15)
    estimate = estimate_mean(x)
    for level in (0.5, 0.95):
        expected = stats.t.interval(level, 14, loc=x.mean(), scale=stats.sem(x))
        assert estimate.interval(level) == pytest.approx(expected)
        assert interval_of(estimate.value, estimate.se, 15, level=level) == pytest.approx(expected)


def test_subsets_are_independent_of_the_groups_of_prompts():
    """Each holds rows of all groups in about equal numbers; before, the first ones lay within one group."""
    groups = prompt_groups(40_000)
    group_of = np.empty(40_000, dtype=int)
    for index, group in enumerate(groups):
        group_of[group] = index
    for rows, others in itertools.islice(kid.draw_subsets(40_000, 40_000), 3):
        for drawn in (rows, others):
            assert np.bincount(group_of[drawn], minlength=len(groups)).min() > 20


def test_the_mean_of_methods_is_that_of_their_scores_on_each_prompt() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    mean, expected = mean_of([estimate_mean(x), estimate_mean(y)]), estimate_mean((x + y) / 2)
    assert mean.value == pytest.approx(expected.value)
    assert mean.without == pytest.approx(expected.without)
    assert (mean.group_sizes, mean.key) == (expected.group_sizes, expected.key)
    with pytest.raises(ValueError, match="the same prompts in the same order"):
        mean_of([estimate_mean(x), estimate_mean(x[:30])])
