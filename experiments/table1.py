"""`python -m experiments.table1 [overrides]`: every cell of the experiment's table, then the table and its galleries.

What is drawn and scored already is not done again; `make reproduce-table` calls this.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.config import Cell, build_cell, command, compose_config
from experiments.plots import write_gallery
from experiments.run import run_cell
from experiments.table import collect, write_table
from experiments.tracking import log_table


def cell_overrides(overrides: Sequence[str]) -> tuple[list[list[str]], Path, str]:
    """The command line of each cell, resolutions outermost, the results folder and the experiment's name."""
    if not any(override.startswith("experiment=") for override in overrides):
        overrides = ["experiment=table1", *overrides]
    config = compose_config(overrides)
    experiment = config.experiment
    skip = experiment.skip or {}
    pairs = [(r, m) for r in experiment.resolutions for m in experiment.methods if m not in skip.get(r, [])]
    grid = [[*overrides, f"resolution={r}", f"method={m}"] for r, m in pairs]
    return grid, Path(config.paths.results), experiment.name


def table_cells(overrides: Sequence[str]) -> tuple[list[Cell], Path]:
    grid, results, _ = cell_overrides(overrides)
    return [build_cell(compose_config(line)) for line in grid], results


def write_galleries(cells: Sequence[Cell], results: Path) -> list[Path]:
    """``gallery_<resolution>.png`` for each resolution: base-size sample, then each method."""
    paths = []
    for resolution in dict.fromkeys(cell.resolution for cell in cells):
        columns = [(cell.method_name, cell) for cell in cells if cell.resolution == resolution]
        height, width = columns[0][1].height, columns[0][1].width
        columns = [(f"{name}\n{height}x{width}", cell) for name, cell in columns]
        paths.append(results / f"gallery_{resolution}.png")
        write_gallery(columns, paths[-1])
    return paths


def reproduce(overrides: Sequence[str]) -> None:
    grid, results, name = cell_overrides(overrides)
    cells = [build_cell(compose_config(line)) for line in grid]  # every cell is checked before the first is drawn
    for line in grid:
        run_cell(line)
    table = collect(cells)
    print("\n" + write_table(table, results, name))
    pictures = write_galleries(cells, results)
    log_table(table, pictures, name, cells[0])
    for path in [*sorted(results.glob(f"{name}.*")), *pictures]:
        print(path)


if __name__ == "__main__":
    command(reproduce)
