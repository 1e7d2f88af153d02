"""Checking the features and scores in a run folder: whether the files are whole, and of the images that are there.
Both can be computed again, so a repair removes what does not belong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from eval.images import ImageFile
from eval.index import FILE as INDEX
from eval.index import read_index
from experiments.sampling.manifest import Record, images_digest, prompts_digest, whole_records
from experiments.scoring.stored import is_changed

DAMAGED = (OSError, LookupError, ValueError, TypeError, AttributeError, RecursionError)  # of JSON, and what is in it
METRICS = "metrics.json"


def check_scores(folder: Path) -> dict[Path, str]:
    """What is wrong with features and scores of a run folder: each such file, and why."""
    records = whole_records(folder)
    found = dict(feature_problems(folder, records))
    scores: dict[Path, bytes] = {}
    for path in sorted([*folder.glob("scores/*.json"), *folder.glob(METRICS)]):
        if problem := score_problem(path, records):
            found[path] = problem
        scores[path] = path.read_bytes()
    latest = scores.pop(folder / METRICS, None)
    if latest is not None and folder / METRICS not in found and latest not in scores.values():
        found[folder / METRICS] = "is no copy of a file in scores/"
    for path in sorted([*folder.glob("features/*.tmp"), *folder.glob("scores/*.tmp")]):
        found[path] = "was left behind by a crash"
    return found


def feature_problems(folder: Path, records: Sequence[Record]) -> Iterator[tuple[Path, str]]:
    """Of cached features and of the cached hashes of images."""
    known = {record.sha256 for record in records}
    for path in sorted(folder.glob("features/*.npz")):
        try:
            with np.load(path, allow_pickle=False) as stored:
                content, key = str(stored["content"]), str(stored["key"])
                whole = np.isfinite(stored["features"]).all()
            images = json.loads(content)["images"]
        except Exception:  # of many kinds, as numpy and zipfile stumble over damaged files
            yield path, "is damaged, or of an older version, which did not record of which images it is"
            continue
        if not whole or hashlib.sha256(content.encode()).hexdigest() != key:
            yield path, "is damaged"
        elif not set(images) <= known:
            yield path, f"is of {len(set(images) - known)} images that are not in this run"
    path = folder / "features" / INDEX
    if path.is_file():
        index = read_index(path)
        cached = {stamp.rpartition(f"/{folder.resolve().name}/")[2]: info.digest for stamp, info in index.items()}
        if not index:
            yield path, "is damaged"
        elif any(cached.get(stamp_of(folder, record), record.sha256) != record.sha256 for record in records):
            yield path, "has other hashes than the images"


def stamp_of(folder: Path, record: Record) -> str:
    """`eval.images.ImageFile.stamp` of a run's image, with its path from the run folder on."""
    return ImageFile(folder / record.file, record.id).stamp().removeprefix(f"{folder}/")


def score_problem(path: Path, records: Sequence[Record]) -> str | None:
    """Why a file of scores does not belong to the images; None if it does, or if it does not say of which it is."""
    try:
        scores = json.loads(path.read_bytes())
        n, protocol, images = scores["n"], scores["protocol"], scores.get("images")
        prompts, base = protocol["prompts_sha256"], str(protocol["base_run"])
        hashes = None if images is None else (images["sha256"], images["base_sha256"])
    except DAMAGED:
        return "is damaged"
    if not isinstance(n, int):
        return "is damaged"
    changed = "was changed after it was written" if is_changed(scores) else None
    if n > len(records):
        return f"is of {n} images, and {len(records)} are whole"
    scored = sorted(records, key=lambda record: record.id)[:n]
    listed = prompts_digest((record.id, record.prompt) for record in scored)
    if hashes is None or n < len(records) and listed != prompts:
        return changed  # it is of an older version, or of prompts that are not the first by id
    ids = [record.id for record in scored]
    if hashes[0] != images_digest(records, ids):
        return "is of other images"
    folder = path.parent if path.name == METRICS else path.parent.parent
    for other in folder.parent.glob(f"*-{base[:8]}"):
        if hashes[1] != images_digest(whole_records(other), ids):
            return f"is of other base samples than those in {other.name}"
    return changed


def remove_scores(folder: Path) -> None:
    """Remove what `check_scores` finds: scoring again makes it."""
    for path in check_scores(folder):
        path.unlink()
