"""What a recipe changes: the methods of one experiment beside themselves in another, on the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from eval.comparisons import paired_p_values
from eval.uncertainty import mean_of
from experiments.results.field.frontier import Difference, Group, title_of
from experiments.results.field.recipes import RECIPE, shown
from experiments.results.score_table import markdown

EXPLANATION = (
    "Scores with these recipes minus those in `{other}`, lower is better, with 95% intervals of paired differences; "
    "* marks what is significant (5%, Holm over these methods). A mean is of all methods with that change."
)


def changes_section(group: Group, other: Group, name: str) -> list[str]:
    """Paragraphs: each method's difference to itself in the experiment ``name``, and whether the order of the methods
    is the same. None if no run differs. Methods that only one of the two has are left out.
    """
    both = [method for method in group.rows.index if method in other.rows.index]
    changed = [method for method in both if group.rows["run"][method] != other.rows["run"][method]]
    scores = [score for score in group.scores if score in other.scores]
    if not changed or not scores:
        return []
    if any(prompts_of(group, score) != prompts_of(other, score) for score in scores):
        return [f"Not compared with `{name}`, which has other prompts."]
    recipes = {method: recipe_change(group.rows.loc[method], other.rows.loc[method]) for method in changed}
    rows = [{"method": method, "recipe": recipe} for method, recipe in recipes.items()]
    for score in scores:
        for row, difference in zip(rows, differences(group, other, score, changed), strict=True):
            row[title_of(score)] = f"{difference}{' *' if difference.significant else ''}"
    alike = {text: [method for method, recipe in recipes.items() if recipe == text] for text in recipes.values()}
    for recipe, methods in alike.items():
        if len(methods) > 1:
            means = {title_of(score): str(mean_difference(group, other, score, methods)) for score in scores}
            rows.append({"method": f"mean of {len(methods)}", "recipe": recipe} | means)
    same = [method for method in both if method not in changed]
    parts = [EXPLANATION.format(other=name), markdown(pd.DataFrame(rows))]
    parts += [f"The same images in both: {', '.join(same)}."] if same else []
    return parts + [order_line(group, other, score, both, name) for score in scores]


def recipe_change(row: pd.Series, other: pd.Series) -> str:
    """What differs, from the other's to this one's."""
    different = [name for name in RECIPE if name in row and name in other and row[name] != other[name]]
    return ", ".join(f"{RECIPE[name]} {shown(other[name])} → {shown(row[name])}" for name in different)


def differences(group: Group, other: Group, score: str, methods: Sequence[str]) -> list[Difference]:
    """Each method's score minus its own in ``other``, significant after Holm's correction over these methods."""
    ours, theirs = group.scores[score].estimates, other.scores[score].estimates
    p_values = paired_p_values([(ours[method], theirs[method]) for method in methods])
    return [Difference.between(ours[m], theirs[m], m, p) for m, p in zip(methods, p_values, strict=True)]


def mean_difference(group: Group, other: Group, score: str, methods: Sequence[str]) -> Difference:
    """The mean score of these methods minus that in ``other``, without correction for other differences."""
    ours, theirs = (mean_of([each.scores[score].estimates[name] for name in methods]) for each in (group, other))
    return Difference.between(ours, theirs, "mean", *paired_p_values([(ours, theirs)]))


def order_line(group: Group, other: Group, score: str, methods: Sequence[str], name: str) -> str:
    """How many pairs of methods both experiments tell apart, and those that only one of them does."""
    here, there = (each.scores[score].told_apart(methods) for each in (group, other))
    opposite = {pair for pair in here if pair[::-1] in there}
    texts = [
        f"pairs of methods that differ significantly in both experiments, in the same order: {len(here & there)}",
        f"in opposite orders: {listed(opposite)}",
        f"only with these recipes: {listed(here - there - opposite)}",
        f"only in `{name}`: {listed(there - here - {pair[::-1] for pair in opposite})}",
    ]
    return f"**{title_of(score)}**: {'; '.join(texts)}."


def prompts_of(group: Group, score: str) -> set[tuple[str, tuple[int, ...]]]:
    return {estimate.prompts for estimate in group.scores[score].estimates.values()}


def listed(pairs: set[tuple[str, str]]) -> str:
    """How many, and in brackets which, the better method first."""
    names = ", ".join(f"{better} before {worse}" for better, worse in sorted(pairs))
    return f"{len(pairs)} ({names})" if pairs else "0"
