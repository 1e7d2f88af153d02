"""Weights & Biases as a mirror of what is on disk. Whatever goes wrong there is a warning; runs and files stay.

Without a key everything is logged offline, to be uploaded with `wandb sync`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.sampling.manifest import read_records
from experiments.setup.config import Cell, identity_digest

PICTURES = 16


def never_fails(log: Callable[..., None]) -> Callable[..., None]:
    """A failure of the mirror becomes a warning of one line."""

    @wraps(log)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            log(*args, **kwargs)
        except Exception as error:
            warnings.warn(f"not logged to W&B: {' '.join(str(error).split())}; the files are complete", stacklevel=2)

    return guarded


def wandb_mode() -> Any:
    """WANDB_MODE if it is set; online with a key at hand, offline without."""
    import wandb

    return os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")


def start(runs: Path, project: str, **options: Any) -> Any:
    import wandb

    folder = runs / ".wandb"
    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(console="off", silent=True)
    return wandb.init(project=project, dir=str(folder), mode=wandb_mode(), settings=settings, **options)


@never_fails
def log_cell(cell: Cell, scores: dict[str, Any]) -> None:
    """Configuration, scores and the first pictures of a scored cell. Its id is the run's digest: scoring again updates
    it.
    """
    if cell.logger["name"] == "none":
        return
    import wandb

    run = start(
        cell.runs,
        cell.logger["project"],
        id=cell.digest[:16],
        resume="allow",
        name=cell.folder.name,
        group=cell.experiment or f"{cell.model.name}@{cell.resolution}",
        job_type="cell",
        tags=[cell.method_name],
        config=cell.identity,
    )
    run.summary.update({key: value for key, value in scores.items() if not isinstance(value, (dict, list))})
    run.config.update({"protocol": scores["protocol"]}, allow_val_change=True)
    records = read_records(cell.folder)[:PICTURES]
    run.log({"pictures": [wandb.Image(str(cell.folder / r.file), caption=r.prompt) for r in records]})
    run.finish()


@never_fails
def log_table(table: pd.DataFrame, pictures: Sequence[Path], name: str, cell: Cell) -> None:
    """A finished table and its pictures, logged as ``cell``, one of its cells, is. The same cells update it."""
    if cell.logger["name"] == "none":
        return
    import wandb

    key = identity_digest({"experiment": name, "runs": list(table["run"])})[:16]
    run = start(cell.runs, cell.logger["project"], id=key, resume="allow", name=name, group=name, job_type="aggregate")
    shown = [path for path in pictures if path.suffix == ".png"]
    run.log({name: wandb.Table(dataframe=table), **{path.stem: wandb.Image(str(path)) for path in shown}})
    run.finish()
