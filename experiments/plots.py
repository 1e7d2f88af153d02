"""Pictures of results: the table as PNG, and galleries of prompts x methods with the same seeds.

`python -m experiments.plots [overrides]` redraws those of a finished experiment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image

from experiments.command import command
from experiments.config import Cell
from experiments.manifest import read_records
from experiments.table import SCORES, collect

GALLERY_PROMPTS = 6


def table_picture(shown: pd.DataFrame, note: str, path: Path) -> None:
    """Draw the readable table."""
    figure, axes = plt.subplots(figsize=(1.25 * len(shown.columns), 0.32 * (len(shown) + 3)))
    axes.axis("off")
    drawn = axes.table(cellText=shown.values.tolist(), colLabels=list(shown.columns), loc="center", cellLoc="center")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(9)
    drawn.auto_set_column_width(list(range(len(shown.columns))))
    for (row, _), box in drawn.get_celld().items():
        box.set_edgecolor("#cccccc")
        box.set_height(0.9 / (len(shown) + 2))
        if row == 0:
            box.set_facecolor("#eef1f5")
            box.set_text_props(weight="bold")
    axes.set_title(note, fontsize=8, color="#555555", y=-0.02, va="top")
    figure.savefig(path, dpi=180, bbox_inches="tight")
    plt.close(figure)


def write_gallery(columns: Sequence[tuple[str, Cell]], path: Path, prompts: int = GALLERY_PROMPTS) -> None:
    """One row for each of the first prompts, one column for each cell, pictures of one height."""
    cells = [cell for _, cell in columns]
    files = [{record.id: cell.folder / record.file for record in read_records(cell.folder)} for cell in cells]
    shown = [prompt for prompt in cells[0].prompts[:prompts] if all(prompt.id in found for found in files)]
    widths = [cell.width / cell.height for cell in cells]
    figure, grid = plt.subplots(
        len(shown),
        len(columns),
        figsize=(2.2 * sum(widths), 2.3 * len(shown)),
        squeeze=False,
        gridspec_kw={"width_ratios": widths, "wspace": 0.04, "hspace": 0.14},
    )
    for row, prompt in enumerate(shown):
        for column, (title, _) in enumerate(columns):
            axes = grid[row][column]
            axes.imshow(Image.open(files[column][prompt.id]), interpolation="lanczos")
            axes.axis("off")
            if row == 0:
                axes.set_title(title, fontsize=10)
        grid[row][0].text(0, -0.03, prompt.text, transform=grid[row][0].transAxes, fontsize=8, va="top")
    figure.savefig(path, dpi=130, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def plot_ablation(table: pd.DataFrame, plot: dict[str, Any], path: Path) -> list[Path]:
    """Each score of ``plot.y`` against the numbers in the variants, one line for each resolution, with two standard
    errors; PNG and PDF.
    """
    numbers = table["variant"].str.extract(r"(-?[0-9.]+)$")[0].astype(float)
    figure, panels = plt.subplots(1, len(plot["y"]), figsize=(3.2 * len(plot["y"]), 2.6), squeeze=False)
    for axes, name in zip(panels[0], plot["y"], strict=True):
        for resolution, group in table.groupby("resolution", sort=False):
            axes.errorbar(
                numbers[group.index], group[name], 2 * group[f"{name}_se"], marker="o", capsize=2, label=resolution
            )
        axes.set_xlabel(plot["x"])
        axes.set_ylabel(SCORES[name].removesuffix(" ↓"))
        axes.grid(alpha=0.3)
    panels[0][0].legend(frameon=False)
    figure.tight_layout()
    paths = [path.with_suffix(".png"), path.with_suffix(".pdf")]
    for each in paths:
        figure.savefig(each, dpi=180)
    plt.close(figure)
    return paths


def redraw(overrides: Sequence[str]) -> None:
    from experiments.reproduce import draw_pictures, read_experiment

    experiment = read_experiment(overrides)
    rows = experiment.rows()
    for path in draw_pictures(experiment, rows, collect(rows)):
        print(path)


if __name__ == "__main__":
    command(redraw)
