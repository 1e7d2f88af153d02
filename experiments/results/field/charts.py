"""Charts of quality beside cost: a row for each method, a panel for each cost and score, the frontier marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from experiments.results.field.frontier import cost_label
from experiments.results.plots import charts, methods_of, pareto, score_title
from experiments.results.reading import compared_groups
from experiments.results.style import CHART, COLUMN, INK, method_style

COSTS = {"seconds_per_image": "seconds per image", "unet_evaluations_per_image": "U-Net evaluations"}
OURS = "scalecrafter"


def charts_of(table: pd.DataFrame, plot: dict[str, Any] | None) -> dict[str, Figure]:
    """All charts of an experiment, by the suffix of their files; with ``plot.frontier`` a frontier for each size."""
    if not plot or "frontier" not in plot:
        return charts(table, plot)
    found = {}
    for title, group in compared_groups(methods_of(table)):
        names = [name for name in plot["frontier"] if group[name].notna().all()]
        if names and group[list(COSTS)].notna().all(axis=None):
            found["frontier_" + title.replace(", ", "_").replace(" ", "_")] = frontier_chart(title, group, names)
    return found | charts(table, None)


@matplotlib.rc_context(CHART)
def frontier_chart(title: str, group: pd.DataFrame, names: Sequence[str]) -> Figure:
    """A row for each method, the cheapest at the top: its costs, then each score with two standard errors.

    Lower is better everywhere. A filled mark is on the frontier of that score by seconds: no method that takes as long
    or less has a lower one.
    """
    group = group.sort_values(list(COSTS), ascending=False)
    height = 0.7 + 0.16 * len(group)
    figure = Figure(figsize=(2.2 * COLUMN, height), layout="constrained")
    panels = figure.subplots(1, len(COSTS) + len(names), sharey=True, squeeze=False)[0]
    for axes, (cost, label) in zip(panels, COSTS.items(), strict=False):
        draw_costs(axes, group, cost)
        axes.set_xlabel(label)
    for axes, name in zip(panels[len(COSTS) :], names, strict=True):
        draw_scores(axes, group, name)
        axes.set_xlabel(score_title(name))
    panels[0].set_yticks(range(len(group)), [method.replace("_", " ") for method in group["method"]])
    for label, method in zip(panels[0].get_yticklabels(), group["method"], strict=True):
        label.set_fontweight("bold" if method.startswith(OURS) else "normal")
    note = "lower is better; lines: two standard errors; filled: on the frontier by seconds"
    figure.suptitle(f"{title} ({group['size'].iloc[0]}): {note}", fontsize=7.5)
    return figure


def colours(group: pd.DataFrame) -> list[str]:
    """One for each row: ScaleCrafter and what is made of it stand out."""
    return [method_style(method)["color"] if method.startswith(OURS) else INK for method in group["method"]]


def draw_costs(axes: Axes, group: pd.DataFrame, cost: str) -> None:
    """A bar for each method, with its value."""
    for y, (value, colour) in enumerate(zip(group[cost], colours(group), strict=True)):
        axes.barh(y, value, height=0.6, color=colour, alpha=0.35)
        axes.text(value, y, f" {cost_label(value)}", va="center", fontsize=6)
    axes.set_xlim(0, 1.25 * group[cost].max())
    axes.tick_params(axis="y", length=0)


def draw_scores(axes: Axes, group: pd.DataFrame, name: str) -> None:
    """Intervals of one score."""
    cost = next(iter(COSTS))
    front = pareto(list(zip(group[cost], group[name], strict=True)))
    for y, (row, colour) in enumerate(zip(group.to_dict("records"), colours(group), strict=True)):
        filled = (row[cost], row[name]) in front
        look = {"marker": "o", "markersize": 4, "elinewidth": 0.9, "label": row["method"].replace("_", " ")}
        axes.errorbar(
            row[name],
            y,
            xerr=2 * row[f"{name}_se"],
            color=colour,
            markerfacecolor=colour if filled else "white",
            **look,
        )
    axes.axvline(group[name].min(), color=INK, alpha=0.4, linewidth=0.7, linestyle=":", zorder=0)
    if name == "repetition":  # from parts of an object to dozens
        axes.set_xscale("symlog", linthresh=0.5)
        ticks = [0, 0.5, 2, 5, 20]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(right=max(1.3 * (group[name] + 2 * group[f"{name}_se"]).max(), 1))
    axes.tick_params(axis="y", length=0)
