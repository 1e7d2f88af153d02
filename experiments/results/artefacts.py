"""Everything that is written about a finished experiment: its table in four formats, charts and galleries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from eval.files import open_atomically, write_atomically
from experiments.results.field.charts import charts_of
from experiments.results.field.page import frontier_page
from experiments.results.galleries import gallery_columns, write_gallery, write_zoom
from experiments.results.plots import table_figure
from experiments.results.published import UNKNOWN, published_beside
from experiments.results.reading import finished_rows, read_scores, read_table
from experiments.results.score_table import collect, latex, markdown, note, readable
from experiments.results.style import save_chart
from experiments.results.tracking import log_table
from experiments.setup.architecture import Model, open_architecture
from experiments.setup.grid import Grid
from experiments.setup.models import ModelSource


def write_results(grid: Grid, open_: Callable[[ModelSource], Model] = open_architecture) -> list[str]:
    """Write and print the table of an experiment's finished runs, draw its charts and galleries, mirror them in W&B.

    Returns:
        Why each other run is missing.

    Raises:
        ValueError: no run is finished, or runs that were scored differently.
    """
    done, missing = finished_rows(grid, open_)
    if not done:
        raise ValueError(f"{grid.name} has no finished run: {missing[0]}")
    table = collect(done)
    protocol = read_scores(done[0].run.scores_file)["protocol"]
    print("\n" + write_table(table, grid.results, grid.name, protocol))
    images = [*write_images(grid.name, table, grid.plot, grid.runs, grid.results)]
    if grid.plot and "frontier" in grid.plot:
        page = grid.results / f"{grid.name}_frontier.md"
        write_atomically(page, frontier_page(table, grid.runs, grid.plot["frontier"], other_recipes(grid)))
        print(page)
    log_table(table, images, grid.name, grid.results, done[0].run)
    for path in [*sorted(grid.results.glob(f"{grid.name}.*")), *images]:
        print(path)
    return missing


def other_recipes(grid: Grid) -> tuple[str, pd.DataFrame] | None:
    """The name and table of the experiment that ``plot.against`` names; None while it has no table."""
    name = (grid.plot or {}).get("against")
    if name and (grid.results / f"{name}.csv").is_file():
        return name, read_table(grid.results / f"{name}.csv")
    if name:
        print(f"no comparison with {name}, which has no table yet")
    return None


def write_table(table: pd.DataFrame, folder: Path, name: str, protocol: Mapping[str, Any] = UNKNOWN) -> str:
    """Write ``<name>.{csv,md,tex,png}``; returns the Markdown. ``protocol`` decides which published values compare."""
    shown, explanation = readable(table), note(table)
    published = published_beside(table, protocol)
    text = "\n\n".join(filter(None, (markdown(shown), explanation, published))) + "\n"
    write_atomically(folder / f"{name}.csv", table.to_csv(index=False))
    write_atomically(folder / f"{name}.md", text)
    write_atomically(folder / f"{name}.tex", latex(shown))
    with open_atomically(folder / f"{name}.png") as file:
        table_figure(shown, explanation).savefig(file, format="png", dpi=180, bbox_inches="tight")
    return text


def write_images(
    name: str, table: pd.DataFrame, plot: dict[str, Any] | None, runs: Path, results: Path
) -> Sequence[Path]:
    """Galleries and charts: ``gallery_<resolution>.png`` and ``zoom_<resolution>.png`` of the main table,
    ``<name>_<resolution>.png`` and ``<name>_zoom_<resolution>.png`` of an ablation, ``<name>_<chart>.{png,pdf}``.
    """
    paths = []
    gallery, zoom = ("gallery", "zoom") if name.startswith("table") else (name, f"{name}_zoom")
    for resolution, columns in gallery_columns(table, runs).items():
        for stem, write in ((gallery, write_gallery), (zoom, write_zoom)):
            paths.append(results / f"{stem}_{resolution}.png")
            write(columns, paths[-1])
    for suffix, figure in charts_of(table, plot).items():
        paths += save_chart(figure, results / f"{name}_{suffix}")
    return paths
