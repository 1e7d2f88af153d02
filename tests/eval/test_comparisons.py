"""p-values, Holm's correction, the best rows of a table, and power: worked examples, definitions and simulation."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from eval.comparisons import holm, indistinguishable_from_best, minimum_detectable_difference, paired_p_value
from eval.uncertainty import Estimate, estimate_mean
from tests.eval.helpers import jackknife_of


def test_holm_of_a_worked_example() -> None:
    """Ordered 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1; the last is raised to its predecessor."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert holm([]) == []


def closed_testing(p: np.ndarray, level: float) -> list[bool]:
    """Holm by definition: a hypothesis is rejected if Bonferroni rejects every set of hypotheses that contains it."""
    sets = [s for size in range(1, len(p) + 1) for s in combinations(range(len(p)), size)]
    return [all(min(p[list(s)]) <= level / len(s) for s in sets if i in s) for i in range(len(p))]


def test_holm_equals_closed_testing() -> None:
    rng = np.random.default_rng(0)
    for level in (0.01, 0.05, 0.2):
        for p in rng.uniform(0, 0.2, size=(20, 6)):
            assert [adjusted <= level for adjusted in holm(p)] == closed_testing(p, level)


def test_paired_p_value_is_that_of_a_paired_t_test() -> None:
    """With one image in each group the jackknife of a mean is the textbook case."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 15))
    difference, se = estimate_mean(x).minus(estimate_mean(y))
    assert paired_p_value(difference, se, 15) == pytest.approx(stats.ttest_rel(x, y).pvalue)
    assert paired_p_value(-difference, se, 15) == paired_p_value(difference, se, 15)
    assert (paired_p_value(0.0, 0.0, 15), paired_p_value(0.1, 0.0, 15)) == (1, 0)


def test_best_rows_include_all_that_are_not_significantly_worse() -> None:
    rng = np.random.default_rng(0)
    prompts = rng.normal(size=40)
    noise = rng.normal(size=(4, 40))
    rows = {name: estimate_mean(prompts + 0.1 * noise[i] + shift) for i, (name, shift) in enumerate(SHIFTS.items())}
    assert indistinguishable_from_best(rows) == ["same", "best"]
    assert indistinguishable_from_best({"only": rows["worse"]}) == ["only"]
    assert indistinguishable_from_best({}) == []
    with pytest.raises(ValueError, match="same prompts"):
        indistinguishable_from_best(rows | {"other": estimate_mean(prompts[:30])})


SHIFTS = {"worse": 1.0, "same": 0.0, "best": -0.001, "also worse": 0.3}


def equal_rows(rng: np.random.Generator, rows: int) -> dict[int, Estimate]:
    """Means of 40 prompts in 20 groups of methods that are equally good: a prompt's difficulty plus noise."""
    means = (rng.normal(size=40) + rng.normal(size=(rows, 40))).reshape(rows, 20, 2).mean(axis=2)
    return {row: jackknife_of(mean) for row, mean in enumerate(means)}


@pytest.mark.parametrize("rows", [2, 7])
def test_equal_rows_are_all_best_in_at_least_95_percent_of_tables(rows: int) -> None:
    """The lowest of several is selected, yet the family-wise error stays at 5% (three standard errors of 1000)."""
    rng = np.random.default_rng(rows)
    wrong = np.mean([len(indistinguishable_from_best(equal_rows(rng, rows))) < rows for _ in range(1000)])
    assert wrong <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize(("comparisons", "groups"), [(1, 20), (15, 20), (6, 10)])
def test_minimum_detectable_difference_is_found_with_the_stated_power(comparisons: int, groups: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20000, groups))
    difference = minimum_detectable_difference(1 / np.sqrt(groups), comparisons, groups)
    t = (values.mean(axis=1) + difference) / (values.std(axis=1, ddof=1) / np.sqrt(groups))
    found = 2 * stats.t.sf(np.abs(t), groups - 1) <= 0.05 / comparisons
    assert found.mean() == pytest.approx(0.8, abs=0.03)
    half = minimum_detectable_difference(1, comparisons, groups, power=0.5)
    assert half < minimum_detectable_difference(1, comparisons, groups, power=0.9)
