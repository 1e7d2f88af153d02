"""Charts of tables, a paper's column wide: scores against cost, repetition against size, ablations; and a table as a
figure.
"""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from experiments.results.reading import CONTROLS, SCORES, compared_groups, row_labels, without_corruptions
from experiments.results.style import CHART, COLUMN, INK, method_style, shades


@matplotlib.rc_context({"text.parse_math": False})
def table_figure(shown: pd.DataFrame, note: str) -> Figure:
    """The readable table as a figure."""
    figure = Figure(figsize=(1.25 * len(shown.columns), 0.32 * (len(shown) + 3)))
    axes = figure.subplots()
    axes.axis("off")
    grid = axes.table(cellText=shown.values.tolist(), colLabels=list(shown.columns), loc="center", cellLoc="center")
    grid.auto_set_font_size(False)
    grid.set_fontsize(9)
    grid.auto_set_column_width(list(range(len(shown.columns))))
    for (row, _), cell in grid.get_celld().items():
        cell.set_edgecolor("#cccccc")
        cell.set_height(0.9 / (len(shown) + 2))
        if row == 0:
            cell.set_facecolor("#eef1f5")
            cell.set_text_props(weight="bold")
    axes.set_title(note, fontsize=8, color="#555555", y=-0.02, va="top")
    return figure


def score_title(name: str) -> str:
    return SCORES[name].removesuffix(" ↓")


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, score) that no other point dominates, by increasing cost."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(set(points)):
        if not front or score < front[-1][1]:
            front.append((cost, score))
    return front


def plain_log_ticks(axes: Axes) -> None:
    """A logarithmic x axis labelled 0.2, 0.5, 1, 2 instead of powers of ten."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend entry per label, below the panels."""
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    columns = int((3 if max(map(len, handles)) < 20 else 2) * max(1.0, figure.get_figwidth() / COLUMN))
    figure.legend(handles.values(), handles.keys(), loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=columns)


def methods_of(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that are not controls."""
    return table[~table["method"].isin(CONTROLS)]


@matplotlib.rc_context(CHART)
def cost_frontier(table: pd.DataFrame) -> Figure:
    """KID_r against seconds per image, a panel per resolution, with two standard errors. The line is the Pareto
    frontier: a method above it is dominated by one on it.
    """
    groups = compared_groups(methods_of(table))
    groups = [(name, group) for name, group in groups if len(group) > 1] or groups
    figure = Figure(figsize=(COLUMN * max(1.0, len(groups) / 2), 1.9), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, (title, group) in zip(panels, groups, strict=True):
        for row in group.itertuples():
            look = method_style(row.method) | {
                "linestyle": "",
                "elinewidth": 0.8,
                "label": row.method.replace("_", " "),
            }
            axes.errorbar(row.seconds_per_image, row.kid_r, 2 * row.kid_r_se, **look)
        plain_log_ticks(axes)
        low, high = axes.get_xlim()
        front = pareto(list(zip(group["seconds_per_image"], group["kid_r"], strict=True)))
        costs, scores = zip(*front, (high * 1.1, front[-1][1]), strict=True)
        axes.step(costs, scores, where="post", color=INK, alpha=0.5, linewidth=0.8, linestyle=":", zorder=0)
        axes.set_xlim(low / 1.1, high * 1.1)
        axes.set_title(f"{title} ({group['size'].iloc[0]})")
        axes.set_xlabel("seconds per image")
    panels[0].set_ylabel(score_title("kid_r"))
    panels[0].axhline(0, color=INK, linewidth=0.5, alpha=0.4)
    legend_below(figure, panels)
    return figure


@matplotlib.rc_context(CHART)
def repetition_by_resolution(table: pd.DataFrame) -> Figure:
    """Copies of the object beyond one against the size of the image, a line per method, with two standard errors.
    Methods are slightly offset so that equal values remain visible.
    """
    figure = Figure(figsize=(COLUMN, 1.9), layout="constrained")
    axes = figure.subplots()
    table = without_corruptions(table)
    sizes = {row.resolution: pixels(row.size) for row in table.itertuples()}
    methods = list(dict.fromkeys(table["method"]))
    for index, method in enumerate(methods):
        group = table[table["method"] == method].sort_values("resolution", key=lambda names: names.map(sizes))
        places = group["resolution"].map(sizes) * 1.04 ** (index - (len(methods) - 1) / 2)
        look = method_style(method) | {"elinewidth": 0.8, "label": method.replace("_", " ")}
        axes.errorbar(places, group["repetition"], 2 * group["repetition_se"], **look)
    axes.set_xscale("log")
    axes.set_xticks(list(sizes.values()), list(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("area relative to training")
    axes.set_ylabel("copies beyond one")
    legend_below(figure, [axes])
    return figure


def pixels(size: str) -> int:
    """Pixels of "128x256"."""
    height, width = size.split("x")
    return int(height) * int(width)


def ablation(table: pd.DataFrame, plot: dict[str, Any]) -> Figure:
    """Each score of ``plot.y`` in a panel, with two standard errors, in the colours of the methods: against the number
    that variants end with if ``plot.x`` names it, else one line per variant.
    """
    return against_number(table, plot["x"], plot["y"]) if "x" in plot else by_variant(table, plot["y"])


@matplotlib.rc_context(CHART)
def against_number(table: pd.DataFrame, title: str, names: Sequence[str]) -> Figure:
    """Scores against numbers, panels below each other; a curve per resolution, method and other option."""
    parts = table["variant"].str.extract(r"^(.*?)(-?[0-9.]+)?$")
    numbers, others = parts[1].astype(float), parts[0].str.rpartition(", ")[0]
    curves = list(table.groupby([table["resolution"], table["method"], others], sort=False))
    several = [len({key[place] for key, _ in curves}) > 1 for place in range(3)]
    counts = Counter(method for (_, method, _), _ in curves)
    colours = {method: iter(shades(method_style(method)["color"], count)) for method, count in counts.items()}
    looks: list[dict[str, Any]] = []
    for (key, _), marker in zip(curves, itertools.cycle("osD^v")):
        label = ", ".join(itertools.compress(key, several))
        looks.append({"color": next(colours[key[1]]), "marker": marker, "label": label})
    figure = Figure(figsize=(COLUMN, 0.5 + 1.25 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        for (_, group), look in zip(curves, looks, strict=True):
            errors = 2 * group[f"{name}_se"]
            axes.errorbar(numbers[group.index], group[name], errors, markersize=3.5, elinewidth=0.8, **look)
        axes.set_ylabel(score_title(name))
    panels[-1].set_xlabel(title)
    if len(curves) > 1:
        legend_below(figure, [panels[0]])
    return figure


@matplotlib.rc_context(CHART)
def by_variant(table: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Scores of unordered variants, one line each, panels below each other."""
    several = table["resolution"].nunique() > 1
    pairs = zip(table["resolution"], row_labels(table), strict=True)
    labels = [textwrap.fill(f"{resolution}: {label}" if several else label, 30) for resolution, label in pairs]
    ends = np.cumsum([label.count("\n") + 1.5 for label in labels])  # in lines of text
    places = (ends + np.concatenate([[0], ends[:-1]])) / 2
    figure = Figure(figsize=(COLUMN, (0.4 + 0.11 * ends[-1]) * len(names)), layout="constrained")
    panels = figure.subplots(len(names), 1, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        for place, row in zip(places, table.to_dict("records"), strict=True):
            colour = method_style(row["method"])["color"]
            look = {"color": colour, "marker": "o", "markersize": 3.5, "elinewidth": 0.8}
            axes.errorbar(row[name], place, xerr=2 * row[f"{name}_se"], **look)
        axes.set_yticks(places, labels)
        axes.set_ylim(ends[-1], 0)
        axes.set_xlabel(score_title(name))
    return figure


def charts(table: pd.DataFrame, plot: dict[str, Any] | None) -> dict[str, Figure]:
    """The charts that a table has data for, by the suffix of their files."""
    if plot:
        return {"plot": ablation(table, plot)}
    found = {}
    methods = methods_of(table)
    if len(methods) and methods[["kid_r", "seconds_per_image"]].notna().all(axis=None):
        found["cost"] = cost_frontier(table)
    if table["repetition"].notna().all():
        found["repetition"] = repetition_by_resolution(table)
    return found
