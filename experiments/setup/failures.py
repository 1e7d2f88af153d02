"""Failed jobs of a sweep: each leaves a file, and the process that started the sweep gathers them at its end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

NAME = "failed.json"


@dataclass
class Outcome:
    """Of the sweep that this process started: how many jobs there were, and a line for each that failed."""

    jobs: int = 0
    failed: list[str] = field(default_factory=list)


outcome = Outcome()


def write_failure(folder: Path, overrides: Sequence[str], error: Exception) -> None:
    """Record in the job's folder what was asked and what went wrong."""
    record = {"overrides": list(overrides), "error": " ".join(str(error).split())}
    (folder / NAME).write_text(json.dumps(record) + "\n", encoding="utf-8")


class GatherFailures(Callback):
    """Hydra calls it where the sweep was started, when all jobs are done."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        paths = Path(config.hydra.sweep.dir).iterdir()
        folders = sorted((path for path in paths if path.name.isdecimal()), key=lambda path: int(path.name))
        outcome.jobs = len(folders)
        shared = {"".join(line.split()) for line in config.hydra.overrides.task}
        for folder in folders:
            if (folder / NAME).is_file():
                record = json.loads((folder / NAME).read_text(encoding="utf-8"))
                own = [line for line in record["overrides"] if "".join(line.split()) not in shared]
                outcome.failed.append(f"{' '.join(own)}: {record['error']}")
