"""Running jobs through Hydra: one, or each combination of a sweep, under whatever launcher the command line chooses.

Every job leaves ``outcome.json`` in its Hydra folder and, if it failed, ``error.txt`` with the traceback. What failed
is read from these files, so that it does not matter in which process or on which machine a job ran; a job without one
was killed.
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import wraps
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from eval.files import write_atomically
from experiments.setup import schema
from experiments.setup.command_line import one_line
from experiments.setup.compose import VERSION_BASE, compose_config, plain_values
from experiments.setup.grid import Grid, left_out, read_grid, skip_override, skip_rules
from experiments.setup.processes import torchrun_rank
from experiments.setup.stopping import stoppable

OUTCOME, TRACEBACK = "outcome.json", "error.txt"
EXPECTED = (ValueError, OSError)  # what a user can put right: one line says it
MULTIRUN = {"-m", "--multirun"}
log = logging.getLogger(__name__)

Job = Callable[[DictConfig], None]
Preparation = Callable[[Sequence[DictConfig], Sequence[str]], None]


@dataclass(frozen=True)
class Outcome:
    """Of one job: its overrides, and the error if it failed."""

    overrides: list[str]
    error: str | None = None


class JobsFailed(ValueError):
    """Some jobs of ``grid`` failed; the others are complete."""

    def __init__(self, message: str, grid: Grid, all_failed: bool) -> None:
        super().__init__(message)
        self.grid, self.all_failed = grid, all_failed


def launch(job: Job, arguments: Sequence[str], prepare: Preparation | None = None) -> Grid | None:
    """Run ``job`` as Hydra does, once or for each row of the grid.

    Args:
        job: takes the configuration of one run.
        arguments: of the command line, Hydra's own options included.
        prepare: called once before the first job, with the configuration of each row and the overrides.

    Returns:
        The rows that were run; None if the arguments only ask for information (``--help``, ``--cfg job``).

    Raises:
        ValueError: before anything runs, with one line, if the configuration is wrong.
        FileNotFoundError: before anything runs, if ``prepare`` raises it.
        OSError: nothing can be written to the folder of the runs.
        JobsFailed: after the other jobs, naming those that failed.
    """
    app = hydra.main(config_path=str(schema.CONF), config_name="config", version_base=VERSION_BASE)(with_outcome(job))
    overrides = only_overrides(arguments)
    if overrides is None:
        sys.argv[1:] = arguments
        app()
        return None
    grid = read_grid(overrides)
    if (rank := torchrun_rank()) is not None:
        grid = replace(grid, output=grid.output / f"rank-{rank[0]}")
    configs = checked_configs(grid)
    if prepare is not None:
        prepare(configs, overrides)
    multirun = grid.multirun or len(grid.rows) > 1 or bool(MULTIRUN & set(arguments))
    # The folder is settled here, where its outcomes are read afterwards.
    settled = [f"hydra.run.dir='{grid.output}'", *([] if grid.skip is None else [skip_override(grid.skip)])]
    sys.argv[1:] = [*overrides, *settled, *(["-m"] * multirun)]
    os.environ.setdefault(
        "HYDRA_FULL_ERROR", "1"
    )  # Hydra raises its errors, as of a full disk, and does not print them
    try:
        app()
    except (SystemExit, CompactHydraException):
        if not list(grid.output.glob(f"**/{OUTCOME}")):
            raise
    folders = [path for path in grid.output.iterdir() if path.name.isdecimal()] if multirun else [grid.output]
    ordered = sorted(folders, key=lambda path: (len(path.name), path.name))
    report_failures(grid, [read_outcome(path) for path in ordered])
    return grid


def only_overrides(arguments: Sequence[str]) -> list[str] | None:
    """The overrides of a command line that has no other option than ``-m``; None if it asks Hydra for something."""
    rest = [argument for argument in arguments if argument not in MULTIRUN]
    return None if any(argument.startswith("-") for argument in rest) else rest


def checked_configs(grid: Grid) -> list[DictConfig]:
    """The configuration of each row; ValueError, with one line, if one is wrong."""
    configs = [compose_config(row.overrides) for row in grid.rows]
    for config in configs:
        plain_values(config)
    return configs


def with_outcome(job: Job) -> Job:
    """The job, which leaves its outcome on disk and raises what Hydra prints as one line."""

    @wraps(job)
    def wrapped(config: DictConfig) -> None:
        settings = HydraConfig.get()
        folder, overrides = Path(settings.runtime.output_dir), list(settings.overrides.task)
        values = dict(line.split("=", 1) for line in overrides if "=" in line)
        if left_out(skip_rules(config), values):
            log.info("left out: experiment.skip")
            write_outcome(folder, Outcome(overrides))
            return
        with stoppable():  # in a process of a launcher, which has not started the command
            failure = attempt(job, config)
        write_outcome(folder, Outcome(overrides, failure.message if failure else None))
        if failure is None:
            return
        write_atomically(folder / TRACEBACK, failure.traceback)
        if "SUBMITIT_EXECUTOR" in os.environ:  # the scheduler has to see a failed job, once its result is written
            atexit.register(os._exit, 1)
        if not failure.expected:
            log.error(failure.traceback)
        if settings.mode == RunMode.RUN:
            sys.exit(1)  # `launch` says why, once
        raise CompactHydraException(failure.message)

    return wrapped


@dataclass(frozen=True)
class Failure:
    """Of a job: a line, the whole traceback, and whether it is one of the `EXPECTED`."""

    message: str
    traceback: str
    expected: bool


def attempt(job: Job, config: DictConfig) -> Failure | None:
    """Run a job. Nothing of a failure but text remains: its frames would keep the memory that the next job needs."""
    try:
        job(config)
        return None
    except Exception as error:
        text = one_line(error)
        expected = isinstance(error, EXPECTED)
        message = text if expected and text else f"{type(error).__name__}: {text}".removesuffix(": ")
        failure = Failure(message, traceback.format_exc(), expected)
    gc.collect()
    if "torch" in sys.modules and (cuda := sys.modules["torch"].cuda).is_initialized():
        cuda.empty_cache()
    return failure


def write_outcome(folder: Path, outcome: Outcome) -> None:
    write_atomically(folder / OUTCOME, (json.dumps(asdict(outcome)) + "\n").encode())


def read_outcome(folder: Path) -> Outcome:
    """What became of a job; one that left nothing was killed."""
    path = folder / OUTCOME
    if path.is_file():
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    return Outcome([f"job {folder.name}"], f"no outcome in {folder}: the job was killed")


def report_failures(grid: Grid, outcomes: Sequence[Outcome]) -> None:
    """JobsFailed with a line that names each failed job by the overrides that it does not share with the others."""
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if not failed:
        return
    if len(outcomes) == 1:
        raise JobsFailed(str(failed[0].error), grid, all_failed=True)
    shared = set.intersection(*(set(outcome.overrides) for outcome in outcomes))
    lines = []
    for outcome in failed:
        own = [line for line in outcome.overrides if line not in shared]
        lines.append(f"{' '.join(own)}: {outcome.error}")
    message = f"{len(failed)} of {len(outcomes)} jobs failed, the others are complete: {'; '.join(lines)}"
    if grid is not None and any(grid.output.glob(f"*/{TRACEBACK}")):
        message += f" (tracebacks: {grid.output}/*/{TRACEBACK})"
    raise JobsFailed(message, grid, all_failed=len(failed) == len(outcomes))
