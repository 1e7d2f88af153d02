"""Charts of quality against cost: a panel for each score and cost, the frontier marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.results.plots import charts, legend_below, methods_of, pareto, plain_log_ticks, score_title
from experiments.results.reading import compared_groups
from experiments.results.style import CHART, COLUMN, INK, method_style

COSTS = {"seconds_per_image": "seconds per image", "unet_evaluations_per_image": "base-size pairs per image"}
FADED = 0.35


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
    """Scores (rows) against costs (columns) with two standard errors. The dotted line is the frontier; methods that
    are not on it are faded.
    """
    figure = Figure(figsize=(2 * COLUMN, 0.6 + 1.5 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), len(COSTS), sharex="col", sharey="row", squeeze=False)
    for row, name in zip(panels, names, strict=True):
        for axes, cost in zip(row, COSTS, strict=True):
            draw_frontier(axes, group, cost, name)
        row[0].set_ylabel(score_title(name))
    for axes, label in zip(panels[-1], COSTS.values(), strict=True):
        axes.set_xlabel(label)
    figure.suptitle(f"{title} ({group['size'].iloc[0]})", fontsize=7.5)
    legend_below(figure, [panels[0, 0]])
    return figure


def draw_frontier(axes: Axes, group: pd.DataFrame, cost: str, name: str) -> None:
    """One panel."""
    front = pareto(list(zip(group[cost], group[name], strict=True)))
    for row in group.to_dict("records"):
        look = method_style(row["method"]) | {
            "linestyle": "",
            "elinewidth": 0.8,
            "label": row["method"].replace("_", " "),
            "alpha": 1.0 if (row[cost], row[name]) in front else FADED,
        }
        axes.errorbar(row[cost], row[name], 2 * row[f"{name}_se"], **look)
    plain_log_ticks(axes)
    low, high = axes.get_xlim()
    costs, scores = zip(*front, (high * 1.1, front[-1][1]), strict=True)
    axes.step(costs, scores, where="post", color=INK, alpha=0.5, linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xlim(low / 1.1, high * 1.1)
