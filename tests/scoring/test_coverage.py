"""Coverage of intervals: how sets are sampled, the truth they are compared with, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest

from eval.fid import features_to_fid
from eval.kid import features_to_kid
from experiments import coverage
from experiments.scenes.renderer.scene import sample_scenes
from experiments.scoring import scene_sets
from experiments.scoring.coverage import Measured, estimates, mean_scores, summary
from experiments.scoring.scene_sets import COMBINATIONS, Pool, combinations, pick, render_pool, sample_sets

EACH, DIM = 12, 6


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Gaussian features with different means for each combination; four copies shift the features."""
    rng = np.random.default_rng(0)
    single = np.repeat(rng.normal(size=(COMBINATIONS, DIM)), EACH, axis=0)
    single += rng.normal(size=single.shape)
    counts = rng.uniform(0.9, 1.1, (len(single), 1))
    return Pool(np.hstack([single, counts]), np.hstack([single + 0.5, 4 * counts]))


@pytest.fixture
def free() -> np.ndarray:
    return np.ones((COMBINATIONS, EACH), dtype=bool)


def test_balanced_sets_hold_each_combination_equally_often() -> None:
    rng = np.random.default_rng(0)
    balanced = np.bincount(combinations(rng, 2 * COMBINATIONS + 10, "balanced"), minlength=COMBINATIONS)
    assert sorted(balanced) == [2] * (COMBINATIONS - 10) + [3] * 10
    independent = np.bincount(combinations(rng, 10_000, "independent"), minlength=COMBINATIONS)
    expected = 10_000 / COMBINATIONS
    assert independent.var() == pytest.approx(expected, rel=0.4)  # multinomial


def test_picked_rows_are_free_distinct_and_of_the_wanted_combination(free: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    free[:, ::2] = False
    wanted = rng.integers(COMBINATIONS, size=200)
    rows = pick(rng, wanted, free)
    assert (rows // EACH == wanted).all()
    assert free.flat[rows].all()
    assert len(set(rows)) == 200
    with pytest.raises(ValueError, match="the pool has too few scenes for sets of 7"):
        pick(rng, np.zeros(7, dtype=int), free)


def test_methods_and_base_show_the_same_prompts(pool: Pool, free: np.ndarray) -> None:
    sets = sample_sets(np.random.default_rng(0), pool, 144, "balanced", free)
    few, many = ((rows[:, -1] > 2) for rows in sets.methods.values())
    assert 0 < few.sum() < many.sum() < 144
    assert not (few & ~many).any()
    np.testing.assert_array_equal(sets.methods["30% repeat"][~few], sets.real[~few])
    np.testing.assert_allclose(sets.methods["60% repeat"][many, :-1], sets.real[many, :-1] + 0.5)
    position = {tuple(row): i // EACH for i, row in enumerate(pool.single)}
    assert [position[tuple(row)] for row in sets.base] == [position[tuple(row)] for row in sets.real]
    assert not (sets.base == sets.real).all(axis=1).any()


def test_truths_are_means_of_the_scores_of_eval(pool: Pool, free: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    many = [sample_sets(rng, pool, 20, "independent", free) for _ in range(3)]
    y = pool.single[rng.permutation(len(pool.single))[:50], :-1]
    found = mean_scores(many, y)
    every = [estimates(sets, y) for sets in many]
    assert found.keys() == every[0].keys()
    for name, value in found.items():
        assert value == pytest.approx(np.mean([each[name].value for each in every]), rel=1e-9), name
    x, base = many[0].methods["60% repeat"], many[0].base
    assert every[0]["FID_b, 60% repeat"].value == pytest.approx(features_to_fid(x[:, :-1], base[:, :-1]))
    assert every[0]["KID_r, 60% repeat"].value == pytest.approx(features_to_kid(x[:, :-1], y))


def test_summary_counts_intervals_that_hold_the_truth() -> None:
    """Student's t with 19 degrees of freedom: the half-width is 2.093 standard errors."""
    measured = [Measured(value, 1.0, 20, truth) for value, truth in ((0.0, 2.05), (0.0, -2.2), (1.0, 1.0), (1.0, 0.0))]
    found = summary(measured)
    assert (found["value"], found["truth"]) == (0.5, pytest.approx(0.2125))
    assert (found["coverage"], found["within_two_se"], found["coverage_over_references"]) == (0.75, 0.5, 1.0)
    assert found["se_ratio"] == pytest.approx(1 / np.sqrt((2.05**2 + 2.2**2 + 1) / 4))


@pytest.mark.slow
def test_command_measures_writes_and_prints(pool: Pool, tmp_path: Path, monkeypatch, capsys) -> None:
    """The repetition score is a mean: for independent scenes the classical interval holds it in 95% of cases."""
    monkeypatch.setattr(coverage, "render_pool", lambda *args: pool)
    sizes = ["--images", "24", "--reference", "40", "--fresh", "10", "--repetitions", "30"]
    coverage.main([*sizes, "--results", str(tmp_path)])
    record = json.loads((tmp_path / "coverage.json").read_text())
    assert record["sizes"] == {"images": 24, "reference": 40, "fresh": 10}
    rows = {row["score"]: row for row in record["rows"] if row["design"] == "independent"}
    assert {row["score"] for row in record["rows"] if row["design"] == "balanced"} == set(rows)
    assert rows["repetition, 60% repeat"]["truth"] == pytest.approx(0.6 * 3, rel=0.1)
    assert rows["repetition, 60% repeat"]["coverage"] >= 0.8
    assert rows["repetition, difference"]["truth"] == pytest.approx(0.3 * 3, rel=0.1)
    assert abs(rows["KID_r, real"]["truth"]) < rows["KID_r, 60% repeat"]["truth"]
    assert (tmp_path / "coverage.md").read_text() in capsys.readouterr().out
    with pytest.raises(ValueError, match="at least 2 repetitions"):
        coverage.main(["--repetitions", "1"])


def test_pool_is_rendered_in_order_of_combinations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sixth of all combinations stands for them."""
    with pytest.raises(ValueError, match="100 is not a multiple"):
        render_pool(100, 32, tmp_path)
    monkeypatch.setattr(scene_sets, "COMBINATIONS", 24)
    made = render_pool(24, 32, tmp_path)
    assert made.single.shape == made.repeated.shape == (24, 65)
    assert made.repeated[:, -1].mean() > made.single[:, -1].mean() + 1
    assert len({scene.caption for scene in sample_scenes(COMBINATIONS, 0)}) == COMBINATIONS
