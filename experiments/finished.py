"""What finished experiments left behind: tables in results/, pictures and records in run folders. Nothing is drawn
here, and no model is needed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments.manifest import Record, read_records

COLUMNS = {"model", "resolution", "size", "method", "variant", "n", "run"}

Column = tuple[str, Path]  # of a gallery: its title and the run folder


def read_table(path: Path) -> pd.DataFrame:
    """The table that an experiment wrote to ``<results>/<name>.csv``.

    Raises:
        FileNotFoundError: it is not there yet.
        ValueError: it is no such table.
    """
    command = f"python -m experiments.reproduce experiment={path.stem}"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: make it with {command}")
    try:
        table = pd.read_csv(path, dtype={"variant": str})
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is no table ({error}): make it again with {command}") from error
    lacking = sorted(COLUMNS - set(table.columns))
    if lacking or table.empty:
        raise ValueError(f"{path} has no {', '.join(lacking) or 'rows'}: make it again with {command}")
    table["variant"] = table["variant"].fillna("")
    return table


def run_folders(table: pd.DataFrame, runs: Path) -> list[Path]:
    """The run folder of each row; FileNotFoundError for one that is gone."""
    folders = [runs / name for name in table["run"]]
    for folder in folders:
        if not (folder / "manifest.jsonl").is_file():
            raise FileNotFoundError(f"no run at {folder}: set paths.runs, or draw it again (make reproduce-table)")
    return folders


def gallery_columns(table: pd.DataFrame, runs: Path) -> dict[str, list[Column]]:
    """For each resolution the columns of its gallery: the variant, or the method where there is none, and its run."""
    found: dict[str, list[Column]] = {}
    for row, folder in zip(table.itertuples(), run_folders(table, runs), strict=True):
        found.setdefault(str(row.resolution), []).append((str(row.variant or row.method), folder))
    return found


def shared_records(folders: Sequence[Path], limit: int) -> list[list[Record]]:
    """For each of the first ``limit`` prompts that all runs have drawn, its record in each of them."""
    found = [{record.id: record for record in read_records(folder)} for folder in folders]
    ids = sorted(set.intersection(*map(set, found)))[:limit]
    return [[records[key] for records in found] for key in ids]


def read_run(folder: Path) -> dict[str, Any]:
    """What a run says about itself: ``identity`` (all that decides its pixels), ``environment`` (versions) and
    ``protocol`` (how it was scored; empty if it was not).
    """

    def load(name: str) -> dict[str, Any]:
        path = folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    identity = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    protocol = load("metrics.json").get("protocol", {})
    return {"identity": identity, "environment": load("environment.json"), "protocol": protocol}


def opening_comment(path: Path) -> str:
    """The comment that a configuration file begins with, without Hydra's directive."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    return " ".join(lines)
