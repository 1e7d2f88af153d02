"""Weights & Biases as a mirror of what is on disk. A failure there is a warning; runs and files are unaffected.

Without an API key everything is logged offline, to be uploaded with `wandb sync`.
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
from experiments.setup.identity import identity_digest
from experiments.setup.runs import Run

IMAGES = 16


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
def log_run(run: Run, scores: dict[str, Any]) -> None:
    """Configuration, scores and the first images of a scored run. Its id is the run's digest, so scoring it again
    updates it.
    """
    if run.logger["name"] == "none":
        return
    import wandb

    logged = start(
        run.runs,
        run.logger["project"],
        id=run.digest[:16],
        resume="allow",
        name=run.folder.name,
        group=run.experiment or f"{run.model.name}@{run.resolution}",
        job_type="run",
        tags=[run.method_name],
        config=run.identity,
    )
    logged.summary.update({key: value for key, value in scores.items() if not isinstance(value, (dict, list))})
    logged.config.update({"protocol": scores["protocol"]}, allow_val_change=True)
    records = read_records(run.folder)[:IMAGES]
    logged.log({"images": [wandb.Image(str(run.folder / r.file), caption=r.prompt) for r in records]})
    logged.finish()


@never_fails
def log_table(table: pd.DataFrame, images: Sequence[Path], name: str, example: Run) -> None:
    """A finished table and its images, with the logger of ``example``, one of its runs. The same runs update it."""
    if example.logger["name"] == "none":
        return
    import wandb

    key = identity_digest({"experiment": name, "runs": list(table["run"])})[:16]
    logged = start(
        example.runs, example.logger["project"], id=key, resume="allow", name=name, group=name, job_type="aggregate"
    )
    shown = [path for path in images if path.suffix == ".png"]
    logged.log({name: wandb.Table(dataframe=table), **{path.stem: wandb.Image(str(path)) for path in shown}})
    logged.finish()
