"""An experiment of two runs on a tiny pipeline, processes of it that die at a chosen moment, and what has to be the
same afterwards as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from experiments import reproduce
from tests import commands
from tests.tiny import tiny_overrides

PATIENCE = 5 * commands.PATIENCE  # seconds for an experiment, some of them side by side
SECONDS = "seconds_per_image"  # the one score that differs from run to run
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "fcntl.flock"}


@dataclass(frozen=True)
class Experiment:
    """A command line and where it writes: ``runs`` and ``results`` in ``folder``."""

    pipeline: Path
    folder: Path

    @property
    def overrides(self) -> list[str]:
        small = [
            "experiment.plot.y=[kid_r]",
            "prompts.limit=3",
            "metrics.crops=null",
            "metrics.reference_count=4",
            "batch_size=1",
        ]
        grid = ["experiment=ablate_tau", "resolution=x4", "scalecrafter.tau=0,50"]
        return [*grid, *tiny_overrides(self.pipeline, self.folder), *small, "model.dtype=float32"]

    def resume(self, *options: str) -> str:
        """Run the command in this process to its end; returns what it printed. Raises as it does."""
        arguments, out = sys.argv, io.StringIO()
        sys.argv = ["reproduce"]
        try:
            with contextlib.redirect_stdout(out):
                reproduce.main([*self.overrides, *options])
        finally:
            sys.argv = arguments
        return out.getvalue()

    def start(self, err: str = os.devnull) -> BaseProcess:
        return commands.start(*self.overrides, module="experiments.reproduce", err=err, OMP_NUM_THREADS="1")

    def start_counting(self, events: int) -> BaseProcess:
        """A process that dies at its n-th change of a file, as by kill -9."""
        environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
        arguments = (events, "experiments.reproduce", tuple(self.overrides), environment, os.devnull, os.devnull)
        process = commands.CONTEXT.Process(target=dying, args=arguments)
        process.start()
        return process

    def copy(self, folder: Path) -> Experiment:
        """Everything that it has written, elsewhere."""
        for name in ("runs", "results"):
            shutil.copytree(self.folder / name, folder / name, dirs_exist_ok=True)
        return Experiment(self.pipeline, folder)


def changes_a_file(event: str, details: tuple[Any, ...]) -> bool:
    """Whether an audit event is one, or opens a file for writing."""
    writes = event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR)
    return bool(writes) or event in EVENTS


def dying(events: int, *arguments: Any) -> None:
    """`tests.commands.main` in a process that kills itself before its n-th change of a file."""
    left = events

    def count(event: str, details: tuple[Any, ...]) -> None:
        nonlocal left
        if changes_a_file(event, details):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    commands.main(*arguments)


@dataclass(frozen=True)
class Length:
    """How many changes of files and seconds of a CPU an experiment takes."""

    events: int
    seconds: float


def measured(experiment: Experiment) -> Length:
    """Run it here, and measure that."""
    counting, events, started = True, 0, time.process_time()

    def count(event: str, details: tuple[Any, ...]) -> None:
        nonlocal events
        events += counting and changes_a_file(event, details)

    sys.addaudithook(count)
    experiment.resume()
    counting = False
    return Length(events, time.process_time() - started)


def kill_after(process: BaseProcess, seconds: float) -> None:
    """kill -9 once the process has used so much of a CPU, or has ended."""
    end = time.monotonic() + PATIENCE
    while process.is_alive() and time.monotonic() < end:
        try:
            used = sum(psutil.Process(process.pid).cpu_times()[:2])
        except psutil.NoSuchProcess:
            break
        if used >= seconds:
            process.kill()
            break
        time.sleep(0.005)
    process.join(PATIENCE)
    assert process.exitcode is not None, "gave up waiting"


def outcome(experiment: Experiment) -> dict[str, Any]:
    """All that has to be the same: images, galleries and charts by hash, manifests as sets, configurations, scores and
    the table without the seconds that sampling took.
    """
    runs, results, found = experiment.folder / "runs", experiment.folder / "results", {}
    images = [*runs.glob("*/images/*"), *runs.glob("*/config.yaml"), *results.glob("*_x*.png")]
    for path in images:
        found[str(path.relative_to(experiment.folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in runs.glob("*/manifest*.jsonl"):
        found[str(path.relative_to(experiment.folder))] = frozenset(path.read_text().splitlines())
    for path in [*runs.glob("*/scores/*.json"), *runs.glob("*/metrics.json")]:
        scores = json.loads(path.read_text())
        found[str(path.relative_to(experiment.folder))] = without(scores, SECONDS, "sha256")
    table = (results / "ablate_tau.csv").read_text().splitlines()
    column = table[0].split(",").index(SECONDS)
    found["table"] = [[cell for i, cell in enumerate(line.split(",")) if i != column] for line in table]
    found["results"] = sorted(path.name for path in results.iterdir() if path.suffix != ".tmp")
    found["left behind"] = [path.name for path in runs.glob("*/images/*.tmp")]
    return found


def without(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}
