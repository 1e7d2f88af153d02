"""Weights & Biases as a mirror of what is on disk. A failure there is a warning; runs and files are unaffected.

Without an API key everything is logged offline, to be uploaded with `wandb sync`. What was sent is noted in a folder
``.wandb`` beside the files, so that it is not sent twice: without that folder it is sent again.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from eval.files import sha256_of_file, write_atomically
from experiments.sampling.manifest import NAME, read_records
from experiments.setup.identity import FILE, identity_digest

if TYPE_CHECKING:
    from experiments.setup.runs import Run

IMAGES = 16
INTERVAL = 10.0  # seconds between two reports of progress, at least
NOTES = ".wandb"  # folder of what W&B writes, and of notes of what was sent


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


def start(folder: Path, project: str, key: str, **options: Any) -> Any:
    """A W&B run with the id ``key``, continued if there is one; its files are below ``folder``."""
    import wandb

    own = folder / NOTES
    own.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(console="off", silent=True)
    return wandb.init(
        project=project, id=key, dir=str(own), mode=wandb_mode(), settings=settings, resume="allow", **options
    )


def wandb_id(**what: Any) -> str:
    """The id of a W&B run: the same for the same values."""
    return identity_digest(what)[:16]


@contextmanager
def tracked(run: Run) -> Iterator[Tracker]:
    """A run's mirror for the time of a job: it appears with its first images, and as failed if the job fails."""
    tracker = Tracker(run)
    try:
        yield tracker
    except BaseException as error:
        tracker.fail(error)
        raise
    finally:
        tracker.close()


class Tracker:
    """One W&B run for the images and one way of scoring them, and one for each shard while it is generated. It is
    started when there is something to send.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.shard = run, run.shard
        self.active = run.logger["name"] != "none"
        self.logged: Any = None
        self.reported = -INTERVAL

    @property
    def key(self) -> str:
        """The id: other prompts or another way of scoring the same images are another run in W&B."""
        return wandb_id(run=self.run.digest, scores=self.run.scores_file.stem, shard=str(self.shard))

    def open(self) -> Any:
        if self.logged is None:
            run = self.run
            name = run.folder.name if self.shard is None else f"{run.folder.name} shard {self.shard}"
            self.active = False  # unless this succeeds: one warning is enough
            self.logged = start(
                run.runs,
                run.logger["project"],
                self.key,
                name=f"{name} n={len(run.prompts)}",
                group=run.experiment or f"{run.model.name}@{run.resolution}",
                job_type="run" if self.shard is None else "shard",
                tags=[run.method_name],
                config=run.identity,
            )
            self.active = True
        return self.logged

    @never_fails
    def progress(self, done: int, total: int) -> None:
        """Report how many images there are, unless that was done a moment ago."""
        now = time.monotonic()
        if self.active and (done == total or now - self.reported >= INTERVAL):
            self.reported = now
            self.open().log({"images_done": done, "images_total": total})

    @never_fails
    def send(self, scores: Mapping[str, Any] | None) -> None:
        """Scores, the first images and the manifest of a complete run; of these, what was not sent before."""
        if not self.active:
            return
        if self.shard is not None:
            self.close()
            self.shard = None
        run = self.run
        files = [path for path in (run.folder / NAME, run.folder / FILE, run.scores_file) if path.is_file()]
        content = {"images": sha256_of_file(run.folder / NAME), "scores": identity_digest(dict(scores or {}))}
        note = run.folder / NOTES / f"{self.key}.json"
        sent = read_note(note)
        if content == sent:
            return
        logged = self.open()
        if logged.summary.get("error"):
            logged.summary["error"] = None  # of an earlier attempt
        if scores is not None:
            logged.summary.update({key: value for key, value in scores.items() if isinstance(value, (int, float))})
            logged.config.update({"protocol": scores["protocol"]}, allow_val_change=True)
        if content["images"] != sent.get("images"):
            import wandb

            records = read_records(run.folder)[:IMAGES]
            logged.log({"images": [wandb.Image(str(run.folder / r.file), caption=r.prompt) for r in records]})
        log_files(logged, f"manifest-{run.folder.name}", "manifest", files)
        self.close()
        write_note(note, content)

    @never_fails
    def fail(self, error: BaseException) -> None:
        """Let the run appear as failed, with the reason."""
        if self.active:
            self.open().summary["error"] = " ".join(f"{type(error).__name__}: {error}".split())
            self.close(exit_code=1)

    @never_fails
    def close(self, exit_code: int = 0) -> None:
        logged, self.logged = self.logged, None
        if logged is not None:
            logged.finish(exit_code=exit_code)


def log_files(logged: Any, name: str, kind: str, files: Sequence[Path]) -> None:
    """Files as one artifact, of which W&B makes a new version when their contents are new."""
    import wandb

    artifact = wandb.Artifact(name[:128], type=kind)
    for path in files:
        artifact.add_file(str(path), name=path.name)
    logged.log_artifact(artifact)


def read_note(path: Path) -> dict[str, Any]:
    """What was sent; in a sweep of W&B nothing, because its agent has chosen another id."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and "WANDB_SWEEP_ID" not in os.environ else {}


def write_note(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(content) + "\n")


@never_fails
def log_table(table: pd.DataFrame, images: Sequence[Path], name: str, results: Path, example: Run) -> None:
    """A finished table with its files and images, with the logger of ``example``, one of its runs. The same runs,
    scored in the same way, update it.
    """
    if example.logger["name"] == "none":
        return
    import wandb

    key = wandb_id(experiment=name, runs=list(table["run"]), scores=list(table["scores"]))
    files = [path for path in sorted(results.glob(f"{name}.*")) if path.suffix in (".csv", ".md", ".tex")]
    shown = [path for path in images if path.suffix == ".png"]
    with unless_sent(results / NOTES / f"{key}.json", [*files, *shown]) as new:
        if new:
            project = example.logger["project"]
            with start(example.runs, project, key, name=name, group=name, job_type="aggregate") as logged:
                logged.log(
                    {name: wandb.Table(dataframe=table), **{path.stem: wandb.Image(str(path)) for path in shown}}
                )
                log_files(logged, f"table-{name}", "table", files)


@never_fails
def log_report(files: Sequence[Path], runs: Path, logger: Mapping[str, Any]) -> None:
    """The report on all experiments of a folder of results, the same run in W&B each time."""
    if logger["name"] == "none":
        return
    key = wandb_id(report=str(files[0].resolve().parent))
    with unless_sent(files[0].parent / NOTES / f"{key}.json", files) as new:
        if new:
            with start(runs, logger["project"], key, name="report", job_type="report") as logged:
                log_files(logged, "report", "report", files)


@contextmanager
def unless_sent(note: Path, files: Sequence[Path]) -> Iterator[bool]:
    """Whether these contents are new; noted as sent afterwards."""
    content = {path.name: sha256_of_file(path) for path in files}
    new = content != read_note(note)
    yield new
    if new:
        write_note(note, content)
