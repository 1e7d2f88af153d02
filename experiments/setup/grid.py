"""Experiments: files of conf/experiment, whose grid is Hydra's own ``hydra.sweeper.params``.

Hydra runs a grid; tables, plans and reports have to know its rows without running it. `read_grid` lists them as
Hydra's basic sweeper would: every combination of what the experiment and the command line list, where the command line
replaces the experiment's values of a key. The one thing that Hydra cannot say is here too: ``experiment.skip`` names
combinations to leave out, unless the command line asks for all of a rule's keys.

This module loads neither torch nor diffusers, so that help and errors come at once.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

from experiments.setup.compose import check_name, compose_config, explained

OWN_COLUMNS = ("resolution", "method")  # every other key of a grid is part of the variant
DEFAULT = "table1"
SIGNS = {OverrideType.ADD: "+", OverrideType.FORCE_ADD: "++"}  # before a key that the configuration does not have


@dataclass(frozen=True)
class Row:
    """One run of a grid: its command line, and what sets it apart besides resolution and method."""

    overrides: tuple[str, ...]
    variant: str = ""


@dataclass(frozen=True)
class Grid:
    """All rows of a command line; one that names no experiment and no sweep has a single row."""

    name: str
    rows: tuple[Row, ...]
    skip: tuple[dict[str, Any], ...] | None  # the rules that remain if the command line overrules some
    multirun: bool
    side_by_side: bool  # whether its jobs run in parallel, under whatever launcher
    output: Path  # of Hydra: logs and configuration of each job
    runs: Path
    results: Path
    plot: dict[str, Any] | None


def named_experiment(overrides: Sequence[str], default: str = DEFAULT) -> list[str]:
    """The overrides with an experiment, ``default`` where they name none."""
    named = any(line.lstrip("+").startswith("experiment=") for line in overrides)
    return list(overrides) if named else [f"experiment={default}", *overrides]


@explained()
def read_grid(overrides: Sequence[str]) -> Grid:
    """The rows of a command line; ValueError with one line for what cannot be parsed or composed."""
    given = OverridesParser.create().parse_overrides(list(overrides))
    fixed = [str(override.input_line) for override in given if not override.is_sweep_override()]
    config = compose_config(fixed, with_hydra=True)
    axes = grid_axes(config)
    own = set(axes)
    axes |= {override.key_or_group: values_of(override) for override in given}
    asked = {override.key_or_group for override in given}
    signs = {override.key_or_group: SIGNS.get(override.type, "") for override in given}
    rules = skip_rules(config)
    skip = tuple(rule for rule in rules if not rule.keys() <= asked)
    rows: dict[tuple[str, ...], str] = {}
    labelled = [key for key in axes if key not in OWN_COLUMNS and (key in own or len(axes[key]) > 1)]
    for combination in itertools.product(*axes.values()):
        values = dict(zip(axes, combination, strict=True))
        if not left_out(skip, values):
            line = tuple(f"{signs.get(key, '')}{key}={value}" for key, value in values.items())
            rows.setdefault(line, ", ".join(label(key, values[key]) for key in labelled))
    check_name("experiment", config.experiment.name)
    plot = OmegaConf.to_container(config.experiment.plot, resolve=True) if config.experiment.plot else None
    return Grid(
        name=config.experiment.name or "runs",
        rows=tuple(Row(line, variant) for line, variant in rows.items()),
        skip=skip if len(skip) < len(rules) else None,
        multirun=config.hydra.mode is not None and config.hydra.mode.name == "MULTIRUN",
        side_by_side=not config.hydra.launcher._target_.endswith("BasicLauncher"),
        output=Path(config.hydra.run.dir),
        runs=Path(config.paths.runs),
        results=Path(config.paths.results),
        plot=plot,  # type: ignore[arg-type]
    )


def grid_axes(config: DictConfig) -> dict[str, list[str]]:
    """The experiment's own values of each key, as Hydra reads them."""
    params = config.hydra.sweeper.get("params") or {}
    parsed = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    return {override.key_or_group: values_of(override) for override in parsed}


def values_of(override: Override) -> list[str]:
    """The values of one key on a command line."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if not override.is_discrete_sweep():
        raise ValueError(f"{override.input_line}: a grid lists values, or takes a range() of whole numbers")
    return list(override.sweep_string_iterator())


def skip_rules(config: DictConfig) -> list[dict[str, Any]]:
    return OmegaConf.to_container(config.experiment.skip)  # type: ignore[return-value]


def left_out(skip: Sequence[dict[str, Any]], values: dict[str, str]) -> bool:
    """Whether a combination is one of those that ``experiment.skip`` names."""
    return any(all(values.get(key) == str(value) for key, value in rule.items()) for rule in skip)


def skip_override(skip: Sequence[dict[str, Any]]) -> str:
    """The rules as an override."""
    return "experiment.skip=" + json.dumps(list(skip)).replace('"', "").replace(": ", ":")


def label(key: str, value: str) -> str:
    """How a table names a value: ``scalecrafter.tau=20`` is "tau 20"."""
    name, shown = key.replace("/", ".").rsplit(".", 1)[-1], value.strip("'")
    if "/" in key:
        shown = shown.replace("_", " ")
    return f"{name} {shown.lower() if shown in ('True', 'False') else shown}"
