"""How often the published 95% intervals hold the truth, by repetition on rendered scenes (`scene_sets`).

Each repetition samples a reference, generated images and base samples, and forms every interval that a table
publishes. The truth is the mean score of many fresh sets of the same size: against the same reference, which is what
the intervals claim to cover (`eval.uncertainty`), and over all references.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from eval.fid import FixedReference, features_to_fid
from eval.uncertainty import Estimate, estimate_fid, estimate_kid, estimate_mean, interval_of
from experiments.scenes.rendered import single_threaded_processes
from experiments.scoring.scene_sets import COMBINATIONS, DESIGNS, METHODS, Pool, Sets, combinations, pick, sample_sets


@dataclass(frozen=True)
class Sizes:
    """Images of a set, of a reference, and fresh sets that estimate the truth of a repetition."""

    images: int = 64
    reference: int = 512
    fresh: int = 100


def estimates(sets: Sets, y: np.ndarray) -> dict[str, Estimate]:
    """Every score with its error, against the (m, dim) features of a reference."""
    found = {"FID_r, real": estimate_fid(sets.real[:, :-1], y), "KID_r, real": estimate_kid(sets.real[:, :-1], y)}
    base = sets.base[:, :-1]
    for name, rows in sets.methods.items():
        x = rows[:, :-1]
        found |= {f"FID_r, {name}": estimate_fid(x, y), f"KID_r, {name}": estimate_kid(x, y)}
        found |= {f"FID_b, {name}": estimate_fid(x, base, paired=True)}
        found |= {f"KID_b, {name}": estimate_kid(x, base, paired=True)}
        found |= {f"repetition, {name}": estimate_mean(rows[:, -1] - 1)}
    return found


def mean_scores(many: Sequence[Sets], y: np.ndarray) -> dict[str, float]:
    """The mean of each score of `estimates` over many sets, without errors."""
    reference = FixedReference(y)

    def against_reference(stack: np.ndarray) -> tuple[float, float]:
        across = float(kernel(stack, y).mean())
        kid = float(off_diagonal(kernel(stack, stack)).mean() + off_diagonal(kernel(y, y))) - 2 * across
        return float(np.mean([reference.fid(x) for x in stack])), kid

    fid, kid = against_reference(np.stack([sets.real[:, :-1] for sets in many]))
    found = {"FID_r, real": fid, "KID_r, real": kid}
    base = np.stack([sets.base[:, :-1] for sets in many])
    for name in METHODS:
        rows = np.stack([sets.methods[name] for sets in many])
        x = rows[..., :-1]
        found[f"FID_r, {name}"], found[f"KID_r, {name}"] = against_reference(x)
        found[f"FID_b, {name}"] = float(np.mean([features_to_fid(*pair) for pair in zip(x, base, strict=True)]))
        terms = kernel(x, x) + kernel(base, base) - kernel(x, base) - kernel(base, x)
        found[f"KID_b, {name}"] = float(off_diagonal(terms).mean())
        found[f"repetition, {name}"] = float(rows[..., -1].mean() - 1)
    return found


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """KID's kernel between (..., n, dim) and (..., m, dim), apart from `eval.kid`, which it checks."""
    base = x @ np.swapaxes(y, -1, -2) / x.shape[-1] + 1
    return base * base * base


def off_diagonal(values: np.ndarray) -> np.ndarray:
    """Mean over i ≠ j of (..., n, n) values."""
    n = values.shape[-1]
    return (values.sum(axis=(-1, -2)) - np.trace(values, axis1=-2, axis2=-1)) / (n * (n - 1))


@dataclass(frozen=True)
class Measured:
    """A score or paired difference of one repetition, its standard error, number of groups, and the truth for the
    repetition's reference.
    """

    value: float
    se: float
    groups: int
    truth: float

    def covers(self, truth: float) -> bool:
        """Whether the published 95% interval holds ``truth``."""
        low, high = interval_of(self.value, self.se, self.groups)
        return low <= truth <= high


def repetition(task: tuple[str, int], pool: Pool, sizes: Sizes, seed: int) -> dict[str, Measured]:
    """All scores and paired differences of one repetition; ``task``: design and number of the repetition."""
    design, number = task
    rng = np.random.default_rng([seed, DESIGNS.index(design), number])
    free = np.ones((COMBINATIONS, len(pool.single) // COMBINATIONS), dtype=bool)
    chosen = pick(rng, combinations(rng, sizes.reference, design), free)
    free.flat[chosen] = False
    y = pool.single[chosen, :-1]
    found = estimates(sample_sets(rng, pool, sizes.images, design, free), y)
    truths = mean_scores([sample_sets(rng, pool, sizes.images, design, free) for _ in range(sizes.fresh)], y)
    measured = {
        name: Measured(each.value, each.se, len(each.group_sizes), truths[name]) for name, each in found.items()
    }
    few, many = METHODS
    for score in ("FID_r", "KID_r", "FID_b", "KID_b", "repetition"):
        a, b = f"{score}, {many}", f"{score}, {few}"
        value, se = found[a].minus(found[b])
        measured[f"{score}, difference"] = Measured(value, se, measured[a].groups, truths[a] - truths[b])
    return measured


def measure_coverage(pool: Pool, repetitions: int, sizes: Sizes, seed: int = 0) -> list[dict[str, object]]:
    """One row for each design and published interval, see `summary`."""
    tasks = [(design, number) for design in DESIGNS for number in range(repetitions)]
    with single_threaded_processes() as workers:
        done = workers.map(partial(repetition, pool=pool, sizes=sizes, seed=seed), tasks, chunksize=5)
        found = list(tqdm(done, total=len(tasks), desc="repetitions", leave=False, disable=None))
    rows: list[dict[str, object]] = []
    for design in DESIGNS:
        own = [each for each, task in zip(found, tasks, strict=True) if task[0] == design]
        rows += [{"design": design, "score": name} | summary([each[name] for each in own]) for name in own[0]]
    return rows


def summary(measured: Sequence[Measured]) -> dict[str, float]:
    """Over repetitions: means of score and truth, shares of intervals that hold the truth, and the size of the errors.

    Returns:
        value, truth; coverage: of the truth for the same reference; coverage_over_references: of the mean truth;
        within_two_se: |value − truth| ≤ 2 se; se_ratio: root mean square of se over that of value − truth.
    """
    overall = float(np.mean([each.truth for each in measured]))
    errors = np.array([each.value - each.truth for each in measured])
    se = np.array([each.se for each in measured])
    return {
        "value": float(np.mean([each.value for each in measured])),
        "truth": overall,
        "coverage": float(np.mean([each.covers(each.truth) for each in measured])),
        "coverage_over_references": float(np.mean([each.covers(overall) for each in measured])),
        "within_two_se": float(np.mean(np.abs(errors) <= 2 * se)),
        "se_ratio": float(np.sqrt(np.mean(se**2) / np.mean(errors**2))),
    }
