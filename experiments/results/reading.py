"""Reading what experiments left behind: tables in results/, images, scores and records in run folders."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml
from pandas.api.types import is_numeric_dtype

from experiments.scoring.stored import is_changed
from experiments.setup.compose import compose_config
from experiments.setup.grid import Grid
from experiments.setup.identity import find_recorded, read_identity, recorded_environment

if TYPE_CHECKING:  # they load pipelines and text models for seconds, which reading a table does not need
    from experiments.setup.architecture import Model
    from experiments.setup.models import ModelSource
    from experiments.setup.runs import Run

SCORES = {
    "kid_r": "KID_r ↓",
    "fid_r": "FID_r ↓",
    "kid_b": "KID_b ↓",
    "fid_b": "FID_b ↓",
    "pkid_r": "pKID_r ↓",
    "pfid_r": "pFID_r ↓",
    "repetition": "repetition ↓",
}
SHARES = {"object_accuracy": "object ↑", "colour_accuracy": "colour ↑"}
COSTS = {"seconds_per_image": "s/image", "unet_evaluations_per_image": "U-Net evals"}
PATTERNS = {"run": r"[A-Za-z0-9][^/\\]*", "scores": r"scores/[^/\\]+\.json", "size": r"[0-9]+x[0-9]+"}
LABELS = {"model", "resolution", "size", "method", "variant", "n", "run", "scores"}
TEXTS = LABELS - {"n"} | {"scheduler", "negative_prompt", "freeu", "size_condition"}
COLUMNS = {*LABELS, *SCORES, *(f"{name}_{part}" for name in SCORES for part in ("se", "best")), *SHARES, *COSTS}

FLOOR = "real"  # the control method whose images are real
CONTROLS = (FLOOR, "real_blur", "real_enlarge", "real_grid")  # it and its corruptions compete with no method


class DamagedScores(ValueError):
    """A file of scores that is not whole; the run can be scored again."""


@dataclass(frozen=True)
class RunRow:
    """A row of a grid with its run."""

    run: Run
    variant: str = ""

    @property
    def size(self) -> str:
        return f"{self.run.height}x{self.run.width}"

    @property
    def group(self) -> str:
        """Rows of one group are compared: those of a resolution and, if the grid varies it, a number of prompts."""
        return ", ".join([self.run.resolution, *(part for part in self.variant.split(", ") if is_limit(part))])

    def repeats(self, other: RunRow) -> bool:
        """Whether two rows are one run with one number of prompts, as when two limits exceed the prompts there are."""
        own, others = ([part for part in row.variant.split(", ") if not is_limit(part)] for row in (self, other))
        return self.run.scores_file == other.run.scores_file and own == others


def is_limit(option: str) -> bool:
    """Whether a part of a row's variant is the number of prompts."""
    return option.startswith("limit ")


def run_rows(grid: Grid, open_: Callable[[ModelSource], Model] | None = None) -> list[RunRow]:
    """Every row with its run, as `build_run` makes it; raises before anything is sampled if one does not fit."""
    from experiments.setup.architecture import open_model
    from experiments.setup.runs import build_run

    open_ = open_ or open_model
    return [RunRow(build_run(compose_config(row.overrides), open_), row.variant) for row in grid.rows]


def finished_rows(grid: Grid, open_: Callable[[ModelSource], Model] | None = None) -> tuple[list[RunRow], list[str]]:
    """The rows of a grid that are scored, each once, and why each other one is missing.

    Without weights (`open_architecture`, the default) a run is found by the identity that its folder records.
    """
    from experiments.setup.architecture import open_architecture
    from experiments.setup.runs import build_run

    done: list[RunRow] = []
    missing: list[str] = []
    for row in grid.rows:
        try:
            run = build_run(compose_config(row.overrides), open_ or open_architecture)
        except Exception as reason:  # whatever it is, its job has failed with it
            missing.append(str(reason) or type(reason).__name__)
            continue
        try:
            if not run.model.digest:
                run = recorded_run(run)
            read_scores(run.scores_file)
        except (FileNotFoundError, DamagedScores) as reason:
            missing.append(str(reason))
        else:
            finished = RunRow(run, row.variant)
            if not any(finished.repeats(other) for other in done):
                done.append(finished)
    return done, missing


def recorded_run(run: Run) -> Run:
    """The run as its folder records it, with the digest of weights that are not at hand; see `find_recorded`."""
    identity = find_recorded(run.runs, run.stem, run.identity)
    return replace(run, identity=identity, model=replace(run.model, digest=identity["model"]["sha256"]))


def read_scores(path: Path) -> dict[str, Any]:
    """Scores as `experiments.scoring.runs` wrote them.

    Raises:
        FileNotFoundError: the run was not scored in this way yet.
        DamagedScores: the file is not whole.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no scores at {path}: run python -m experiments.run, or experiments.reproduce")
    try:
        scores = json.loads(path.read_bytes())
        if not {"n", "protocol"} <= scores.keys():
            raise ValueError("no n or protocol")
        if is_changed(scores):
            raise ValueError("it was changed after it was written")
    except (ValueError, AttributeError, RecursionError) as error:
        advice = "run python -m experiments.score with the options of the run"
        raise DamagedScores(f"{path} is damaged ({error}): {advice}") from error
    return scores


def read_table(path: Path) -> pd.DataFrame:
    """The table that an experiment wrote to ``<results>/<name>.csv``.

    Raises:
        FileNotFoundError: it is not there yet.
        ValueError: it is not such a table.
    """
    command = f"python -m experiments.reproduce experiment={path.stem}"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: create it with {command}")
    try:
        table = pd.read_csv(path, dtype={"variant": str})
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not a table ({error}): create it again with {command}") from error
    lacking = sorted(LABELS - set(table.columns)) or sorted(COLUMNS - set(table.columns))
    if lacking or table.empty:
        raise ValueError(f"{path} has no {', '.join(lacking) or 'rows'}: create it again with {command}")
    table["variant"] = table["variant"].fillna("")
    if wrong := [name for name in table if not is_column(name, table[name])]:
        raise ValueError(f"{path} was changed in {', '.join(wrong)}: create it again with {command}")
    return table


def is_column(name: str, values: pd.Series) -> bool:
    """Whether a column holds what it should: names of folders and files inside them, other texts, or numbers."""
    if name in PATTERNS:
        return bool(values.notna().all() and values.astype(str).str.fullmatch(PATTERNS[name]).all())
    return name in TEXTS or is_numeric_dtype(values)  # or bool, which counts as one


def run_folders(table: pd.DataFrame, runs: Path) -> list[Path]:
    """The run folder of each row; FileNotFoundError for one that is gone."""
    folders = [runs / name for name in table["run"]]
    for folder in folders:
        if not (folder / "manifest.jsonl").is_file():
            raise FileNotFoundError(f"no run at {folder}: set paths.runs, or run it again (make reproduce-table)")
    return folders


def score_files(table: pd.DataFrame, runs: Path) -> list[Path]:
    """The scores that each row of the table was made from."""
    return [runs / run / scores for run, scores in zip(table["run"], table["scores"], strict=True)]


def row_labels(table: pd.DataFrame) -> list[str]:
    """What sets each row apart at its resolution: the method, the variant, or both."""
    several = table["method"].nunique() > 1
    pairs = zip(table["method"], table["variant"], strict=True)
    return [", ".join(filter(None, (method if several or not variant else "", variant))) for method, variant in pairs]


def without_corruptions(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that are methods, or real images as they are."""
    return table[(table["method"] == FLOOR) | ~table["method"].isin(CONTROLS)]


def compared_groups(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows that are compared with each other, those of a resolution with the same number of prompts, titled."""
    groups = list(table.groupby(["resolution", "n"], sort=False))
    sizes = table.groupby("resolution")["n"].nunique()
    return [(f"{name}, {n} prompts" if sizes[name] > 1 else name, group) for (name, n), group in groups]


def read_run(folder: Path) -> dict[str, Any]:
    """What a run says about itself: ``identity`` (all that decides its pixels) and ``environment`` (versions; none
    if its file is damaged).
    """
    return {"identity": read_identity(folder), "environment": recorded_environment(folder) or {}}


@dataclass(frozen=True)
class Description:
    """What a file of conf/experiment says about itself.

    Args:
        text: its opening comment without Hydra's directive.
        claim: the statement of the paper that it tests; empty for a plain comparison.
        expected: resolution -> the variant that the claim says is best.
    """

    text: str
    claim: str
    expected: dict[str, str]


def read_description(path: Path) -> Description:
    """From a file of conf/experiment."""
    text = path.read_text(encoding="utf-8")
    comment = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    lines = [line.removeprefix("#").strip() for line in comment if "@package" not in line]
    described = yaml.safe_load(text).get("experiment") or {}
    return Description(" ".join(lines), " ".join(described.get("claim", "").split()), described.get("expected") or {})
