"""`python -m experiments.reproduce [experiment=NAME] [overrides]`: all cells of an experiment, its table and pictures.

An experiment is every combination of what `cells` lists (one grid or several), without what `skip` names. What is
drawn and scored already is not done again; a cell that fails does not stop the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.command import command
from experiments.config import build_cell, compose_config
from experiments.plots import draw_pictures
from experiments.run import run_cell
from experiments.table import Row, collect, write_table
from experiments.tracking import log_table

GROUPS = ("resolution", "method")  # they name columns of their own; every other key is part of the variant


@dataclass(frozen=True)
class Experiment:
    """A file of conf/experiment, read: one command line for each cell."""

    name: str
    lines: tuple[tuple[str, ...], ...]
    variants: tuple[str, ...]
    runs: Path
    results: Path
    plot: dict[str, Any] | None

    def rows(self) -> list[Row]:
        """Every cell with its variant; fails before anything is drawn if one does not fit."""
        pairs = zip(self.lines, self.variants, strict=True)
        return [Row(build_cell(compose_config(line)), variant) for line, variant in pairs]


def read_experiment(overrides: Sequence[str]) -> Experiment:
    """The experiment that the overrides name, table1 without one."""
    if not any(override.startswith("experiment=") for override in overrides):
        overrides = ["experiment=table1", *overrides]
    chosen = [override for override in overrides if override.startswith("experiment")]
    # What the command line says comes after what the file says.
    file_says = compose_config(chosen).experiment.get("overrides") or []
    shared = [*chosen, *file_says, *(override for override in overrides if override not in chosen)]
    config = compose_config(shared)
    options: dict[str, Any] = OmegaConf.to_container(config.experiment, resolve=True)  # type: ignore[assignment]
    grids = options["cells"] if isinstance(options["cells"], list) else [options["cells"]]
    found: dict[tuple[str, ...], str] = {}
    for cell in (cell for grid in grids for cell in combinations(grid)):
        values = {key: value for key, (_, value) in cell.items()}
        if any(all(values.get(key) == value for key, value in rule.items()) for rule in options.get("skip") or []):
            continue
        line = (*shared, *(f"{key}={override(value)}" for key, value in values.items()))
        labels = [f"{key.split('.')[-1]} {label}" for key, (label, _) in cell.items() if key not in GROUPS]
        found.setdefault(line, ", ".join(labels))
    runs, results = Path(config.paths.runs), Path(config.paths.results)
    return Experiment(options["name"], tuple(found), tuple(found.values()), runs, results, options.get("plot"))


def combinations(grid: Mapping[str, Any]) -> Iterator[dict[str, tuple[str, Any]]]:
    """Every combination of a grid's values, each with its label. Values stand in a list, or under labels."""
    axes = [
        [(str(label), value) for label, value in values.items()]
        if isinstance(values, Mapping)
        else [(str(value), value) for value in values]
        for values in grid.values()
    ]
    for combination in itertools.product(*axes):
        yield dict(zip(grid, combination, strict=True))


def override(value: Any) -> str:
    """A value as Hydra reads it on a command line."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{override(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(override(each) for each in value) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def reproduce(overrides: Sequence[str]) -> None:
    """Draw, score, tabulate."""
    experiment = read_experiment(overrides)
    rows = experiment.rows()
    done, failed = [], []
    for line, row in zip(experiment.lines, rows, strict=True):
        try:
            run_cell(line)
        except (ValueError, OSError) as error:
            failed.append(f"{row.cell.folder.name}: {' '.join(str(error).split())}")
        else:
            done.append(row)
    if done:
        table = collect(done)
        print("\n" + write_table(table, experiment.results, experiment.name))
        pictures = draw_pictures(experiment.name, table, experiment.plot, experiment.runs, experiment.results)
        log_table(table, pictures, experiment.name, done[0].cell)
        for path in [*sorted(experiment.results.glob(f"{experiment.name}.*")), *pictures]:
            print(path)
    if failed:
        raise ValueError(f"{len(failed)} of {len(rows)} cells failed, the others are complete: {'; '.join(failed)}")


if __name__ == "__main__":
    command(reproduce)
