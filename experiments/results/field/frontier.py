"""Who is on the frontier of quality against cost, with the paired differences that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from eval.comparisons import paired_p_values
from eval.score import as_estimate
from eval.uncertainty import Estimate, interval_of
from experiments.results.reading import CONTROLS, SCORES, compared_groups, read_scores, row_labels, score_files

COSTS = {"unet_evaluations_per_image": "base-size pairs", "seconds_per_image": "seconds"}  # pairs are exact
LEVEL = 0.05
FRONTIER, TIED, BEHIND = "frontier", "tied", "behind"


def title_of(score: str) -> str:
    return SCORES[score].removesuffix(" ↓")


def cost_label(cost: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{cost:.3g}" if cost < 1000 else f"{cost:.0f}"


@dataclass(frozen=True)
class Difference:
    """A score minus that of another method on the same prompts, with its 95% interval; lower is better."""

    other: str
    value: float
    interval: tuple[float, float]
    significant: bool

    @classmethod
    def between(cls, one: Estimate, other: Estimate, name: str, p_value: float) -> Difference:
        """``one`` minus ``other``, which belongs to ``name``; ``p_value`` is corrected already."""
        value, error = one.minus(other)
        return cls(name, value, interval_of(value, error, len(one.group_sizes)), p_value <= LEVEL)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:+.3f} [{low:+.3f}, {high:+.3f}]"


@dataclass(frozen=True)
class Place:
    """Where a method stands with one score and one cost.

    Args:
        status: on the ``frontier`` if no method that costs as much or less has a lower score; ``tied`` if one has,
            but none significantly; else ``behind``.
        rival: the difference to the best of those methods, or if behind to the best of which it is significantly
            worse; None on the frontier.
    """

    method: str
    cost: float
    score: float
    interval: tuple[float, float]
    status: str
    rival: Difference | None = None


class Paired:
    """Paired differences between methods, significant after Holm's correction over all pairs."""

    def __init__(self, estimates: Mapping[str, Estimate]) -> None:
        self.estimates = estimates
        pairs = list(combinations(estimates, 2))
        p_values = paired_p_values([(estimates[a], estimates[b]) for a, b in pairs])
        self.adjusted = dict(zip(map(frozenset, pairs), p_values, strict=True))

    def difference(self, one: str, other: str) -> Difference:
        """The score of ``one`` minus that of ``other``."""
        p_value = self.adjusted[frozenset((one, other))]
        return Difference.between(self.estimates[one], self.estimates[other], other, p_value)

    def told_apart(self, names: Sequence[str]) -> set[tuple[str, str]]:
        """(better, worse) of every pair of these that differs significantly."""
        found = set()
        for one, other in combinations(names, 2):
            difference = self.difference(one, other)
            if difference.significant:
                found.add((one, other) if difference.value < 0 else (other, one))
        return found


def places(paired: Paired, costs: Mapping[str, float]) -> list[Place]:
    """Every method's place, the cheapest first."""
    scores = {method: estimate.value for method, estimate in paired.estimates.items()}

    def dominates(one: str, other: str) -> bool:
        """Whether ``one`` is no worse in both, and better in one of them."""
        no_worse = costs[one] <= costs[other] and scores[one] <= scores[other]
        return no_worse and (costs[one], scores[one]) != (costs[other], scores[other])

    found = []
    for method in sorted(scores, key=lambda name: (costs[name], scores[name])):
        ahead = sorted((other for other in scores if dominates(other, method)), key=lambda other: scores[other])
        differences = [paired.difference(method, other) for other in ahead]
        clear = [difference for difference in differences if difference.significant]
        status = BEHIND if clear else TIED if ahead else FRONTIER
        rival = next(iter(clear or differences), None)
        interval = paired.estimates[method].interval()
        found.append(Place(method, costs[method], scores[method], interval, status, rival))
    return found


@dataclass(frozen=True)
class Group:
    """The methods that are compared with each other, and how they stand with each score.

    Args:
        title: resolution, and the number of prompts if several are compared.
        rows: of the table, without controls, by the name of the method.
        scores: score -> paired differences.
    """

    title: str
    rows: pd.DataFrame
    scores: Mapping[str, Paired]

    def costs(self, name: str) -> dict[str, float]:
        return self.rows[name].to_dict()

    def places(self, score: str, cost: str) -> list[Place]:
        return places(self.scores[score], self.costs(cost))


def read_groups(table: pd.DataFrame, runs: Path, names: Sequence[str]) -> list[Group]:
    """Each group of a table with the scores ``names`` of its runs; groups of fewer than two methods are left out.

    Args:
        table: as `experiments.results.score_table.collect` makes it.
        runs: folder of the run folders.
        names: of scores; one that a run lacks is left out.
    """
    files = pd.Series(score_files(table, runs), index=table.index)
    groups = []
    for title, group in compared_groups(table.assign(label=row_labels(table))):
        rows = group[~group["method"].isin(CONTROLS) & group[list(COSTS)].notna().all(axis=1)]
        if len(rows) < 2:
            continue
        found = {label: read_scores(files[index]) for index, label in rows["label"].items()}
        measured = [name for name in names if all(f"{name}_jackknife" in scores for scores in found.values())]
        scores = {name: Paired({label: as_estimate(each, name) for label, each in found.items()}) for name in measured}
        groups.append(Group(title, rows.set_index("label"), scores))
    return groups
