"""The page of the frontier: who wins where, by how much, and where published tables say otherwise.

docs/frontier.md is this page for the scenes model. Every statement on it is computed from the scores of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.results.field.changes import changes_section
from experiments.results.field.frontier import (
    BEHIND,
    COSTS,
    FRONTIER,
    TIED,
    Group,
    Place,
    cost_label,
    read_groups,
    title_of,
)
from experiments.results.field.orders import orders_section
from experiments.results.field.recipes import RECIPE, compared, recipe_note, varied
from experiments.results.score_table import markdown, prompt_counts

MARKS = {FRONTIER: "●", TIED: "○", BEHIND: ""}
OWN = ("scalecrafter", "scalecrafter_cascade")
SHARE = 0.6  # of direct inference's cost: the aim of ScaleCrafter's cheaper forms
HEAD = """# Quality against cost on {models}

{prompts}. {recipe}

A method is on the frontier (●) if none that costs as much or less has a lower score, and tied with it (○) if one has,
but the paired difference is not significant (5%, Holm over all pairs of methods at that size). Brackets are 95%
intervals over prompts. Pairs are U-Net evaluations, in guidance pairs at the training size; seconds were measured
while the images were sampled, so they hold for that machine. In tables the first mark is by pairs, the second by
seconds, and a dot is a method that is behind."""


def frontier_page(
    table: pd.DataFrame, runs: Path, names: Sequence[str], other: tuple[str, pd.DataFrame] | None = None
) -> str:
    """Markdown of a finished experiment.

    Args:
        table: as `experiments.results.score_table.collect` makes it.
        runs: folder of the run folders.
        names: scores to compare, lower is better.
        other: name and table of an experiment with the same methods, prompts and seeds and other recipes, to compare
            each method with itself.
    """
    different = varied(table)
    recipe = recipe_note(table) + (f" Not the same for all: {', '.join(different.values())}." if different else "")
    head = HEAD.format(
        models=", ".join(sorted(set(table["model"]))), prompts=prompt_counts(table).capitalize(), recipe=recipe
    )
    parts = [head]
    if different:
        parts.append(recipes_table(table, list(different)))
    others = {group.title: group for group in read_groups(other[1], runs, names)} if other else {}
    for group in read_groups(table, runs, names):
        parts += [f"## {group.title} ({group.rows['size'].iloc[0]})", *winners(group), status_table(group)]
        parts += [
            f"Differences of the methods that are behind, by {COSTS[cost]}:\n\n{text}" for cost, text in losers(group)
        ]
        parts += own_lines(group)
        if other and group.title in others:
            parts += changes_section(group, others[group.title], other[0])
        if text := orders_section(group):
            parts.append(text)
    return "\n\n".join(parts) + "\n"


def recipes_table(table: pd.DataFrame, names: Sequence[str]) -> str:
    """What each method was sampled with, once for each recipe."""
    rows = compared(table)[["method", *names]].drop_duplicates()
    return markdown(rows.rename(columns=RECIPE).astype(str))


def bracket(interval: tuple[float, float], digits: int = 3) -> str:
    return f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def winners(group: Group) -> list[str]:
    """For each score the lowest method, those that are not significantly worse, and the frontier by each cost."""
    found = []
    for name, paired in group.scores.items():
        values = {method: estimate.value for method, estimate in paired.estimates.items()}
        best = min(values, key=lambda method: values[method])
        close = [m for m in values if m != best and not paired.difference(m, best).significant]
        interval = bracket(paired.estimates[best].interval())
        text = f"**{title_of(name)}**: lowest is {best}, {values[best]:.3f} {interval}; "
        text += f"not significantly worse: {', '.join(close) or 'none'}."
        for cost in COSTS:
            front = [place for place in group.places(name, cost) if place.status == FRONTIER]
            text += f" Frontier by {COSTS[cost]}: {', '.join(map(costed, front))}."
        found.append(text)
    return found


def costed(place: Place) -> str:
    return f"{place.method} ({cost_label(place.cost)})"


def status_table(group: Group) -> str:
    """Every method with its costs and scores; the first mark is by pairs, the second by seconds."""
    marks: dict[str, dict[str, str]] = {name: {} for name in group.scores}
    for name in group.scores:
        for cost in COSTS:
            for place in group.places(name, cost):
                marks[name][place.method] = marks[name].get(place.method, "") + (MARKS[place.status] or "·")
    rows = []
    for method, row in group.rows.sort_values(list(COSTS)).iterrows():
        cells = {"method": method, "pairs": f"{row['unet_evaluations_per_image']:.0f}"}
        cells["s/image"] = f"{row['seconds_per_image']:.1f}"
        for name, paired in group.scores.items():
            estimate = paired.estimates[str(method)]
            cells[title_of(name)] = f"{estimate.value:.3f} {bracket(estimate.interval())} {marks[name][str(method)]}"
        rows.append(cells)
    return markdown(pd.DataFrame(rows))


def losers(group: Group) -> list[tuple[str, str]]:
    """(cost, table of the methods that are behind with each score and by how much), for each cost."""
    found = []
    for cost in COSTS:
        rows = [
            {"method": place.method, "score": title_of(name), "behind": place.rival.other, "by": str(place.rival)}
            for name in group.scores
            for place in group.places(name, cost)
            if place.status == BEHIND and place.rival is not None
        ]
        if rows:
            found.append((cost, markdown(pd.DataFrame(rows))))
    return found


def own_lines(group: Group) -> list[str]:
    """ScaleCrafter and its cascade against the best other method, at their share of direct inference's cost."""
    found = []
    pairs = group.costs("unet_evaluations_per_image")
    for method in OWN:
        if method not in pairs:
            continue
        text = f"**{method}**"
        if "direct" in pairs:
            share = pairs[method] / pairs["direct"]
            text += f" costs {share:.2f} of direct inference ({'at most' if share <= SHARE else 'above'} {SHARE})"
        for name, paired in group.scores.items():
            others = {other: estimate.value for other, estimate in paired.estimates.items() if other not in OWN}
            if others:
                difference = paired.difference(method, min(others, key=lambda other: others[other]))
                text += f"; {title_of(name)} minus that of {difference.other}, the best other: {difference}"
        found.append(text + ".")
    return found
