"""Experiments: files of conf/experiment, read as one command line for each of their cells.

An experiment is every combination of what `cells` lists (one grid or several), without what `skip` names.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.setup.config import Cell, build_cell, compose_config
from experiments.setup.models import LoadedModel, ModelSource, load_model

GROUPS = ("resolution", "method")  # they name columns of their own; every other key is part of the variant


@dataclass(frozen=True)
class Row:
    """A cell in a table, with what sets it apart beside method and resolution."""

    cell: Cell
    variant: str = ""

    @property
    def size(self) -> str:
        return f"{self.cell.height}x{self.cell.width}"


@dataclass(frozen=True)
class Experiment:
    """A file of conf/experiment, read: one command line for each cell, and what sets it apart."""

    name: str
    lines: tuple[tuple[str, ...], ...]
    variants: tuple[str, ...]
    runs: Path
    results: Path
    plot: dict[str, Any] | None

    def rows(self, load: Callable[[ModelSource], LoadedModel] = load_model) -> list[Row]:
        """Every cell with its variant; fails before anything is drawn if one does not fit."""
        pairs = zip(self.lines, self.variants, strict=True)
        return [Row(build_cell(compose_config(line), load), variant) for line, variant in pairs]


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


def cell_line(overrides: Sequence[str]) -> list[str]:
    """The command line of one cell: the overrides themselves, or, where they name an experiment, that of the cell at
    the place `cell`, counted from 0. ValueError if there is no such cell, or the experiment has more than one.
    """
    config = compose_config(overrides)
    if "experiment" not in config:
        if config.cell is not None:
            raise ValueError("cell counts the cells of an experiment: name it, as experiment=table1")
        return list(overrides)
    experiment = read_experiment([line for line in overrides if not line.startswith("cell=")])
    count = len(experiment.lines)
    if config.cell is None:
        raise ValueError(
            f"{experiment.name} has {count} cells: -m runs each as a job of its own, python -m experiments.reproduce "
            f"one after the other, and cell=0 to cell={count - 1} choose one"
        )
    if not (isinstance(config.cell, int) and 0 <= config.cell < count):
        raise ValueError(f"{experiment.name} has cells 0 to {count - 1}, not {config.cell}")
    return list(experiment.lines[config.cell])
