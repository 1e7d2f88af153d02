"""Checking a run folder against itself: its identity, its manifests, every image, the lines of its costs. No model and
no configuration is needed, so that a folder can be checked wherever it has been copied to.
"""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.files import sha256_of_file, write_atomically
from eval.images import decode
from experiments.prompts import prompt_seed
from experiments.sampling.manifest import (
    QUARANTINE,
    Record,
    first_environment,
    json_line,
    manifest_lines,
    manifests,
    merge_manifests,
    numbered_lines,
    parse_record,
    read_lines,
    set_aside,
    whole_records,
)
from experiments.sampling.shards import gather_shards, shard_folders
from experiments.setup.identity import ENVIRONMENT, FILE, identity_digest, read_identity, recorded_environment
from scalecrafter.checks import is_number

COSTS = {"images", "seconds", "unet_evaluations"}  # what every line of costs has

log = logging.getLogger(__name__)


def check_images(folder: Path) -> list[str]:
    """What is wrong with a run folder apart from features and scores, a line each."""
    found = list(identity_problems(folder))
    identity = {} if found else read_identity(folder)
    for place in [folder, *shard_folders(folder)]:
        inside = "" if place == folder else f"{place.relative_to(folder)}/"
        problems = [*line_problems(place, identity), *image_problems(place), *cost_problems(place)]
        found += [f"{inside}{problem}" for problem in problems]
    return found


def identity_problems(folder: Path) -> Iterator[str]:
    """Of config.yaml, whose hash is the last part of the folder's name, and of environment.json."""
    try:
        digest, name = identity_digest(read_identity(folder)), folder.resolve().name
        if re.search("-[0-9a-f]{8}$", name) and not name.endswith(f"-{digest[:8]}"):
            yield f"{FILE}: was changed: the folder's name is that of another run"
    except ValueError:
        yield f"{FILE}: is missing or damaged"
    if recorded_environment(folder) is None:
        yield f"{ENVIRONMENT}: is missing or damaged"


def line_problems(folder: Path, identity: dict[str, Any]) -> Iterator[str]:
    """Of the lines of all manifests: torn, no records, foreign, repeated."""
    if not manifests(folder):
        yield "manifest.jsonl: is missing"
    seen: dict[str, Record] = {}
    for path in manifests(folder):
        for number, values in numbered_lines(path):
            where = f"{path.name}, line {number}"
            if values is None:
                yield f"{where}: is torn or damaged"
                continue
            try:
                record = parse_record(values)
            except ValueError as reason:
                yield f"{where}: is {reason}" if str(reason).startswith("no ") else f"{where}: {reason}"
                continue
            if record.id in seen:
                yield f"{where}: {'repeats' if seen[record.id] == record else 'contradicts'} the line of {record.id}"
            elif identity and not belongs(record, identity):
                yield f"{where}: is of another run: its size or seed is not this one's"
            seen[record.id] = record


def belongs(record: Record, identity: dict[str, Any]) -> bool:
    """Whether a record is one of the run with this identity."""
    size, seed = identity["size"], prompt_seed(identity["seed"], record.id)
    return [record.height, record.width] == size and record.seed == seed and record.file == f"images/{record.id}.png"


def image_problems(folder: Path) -> Iterator[str]:
    """Of the images: missing, truncated, changed, without a record; and of files that were left behind."""
    hashes = defaultdict(set)
    for record in manifest_lines(folder):
        hashes[record.file].add(record.sha256)
    for file in sorted(hashes):
        image = folder / file
        if not image.is_file():
            yield f"{file}: is missing"
            continue
        if sha256_of_file(image) not in hashes[file]:
            try:
                decode(image.read_bytes(), file)
            except ValueError:
                yield f"{file}: is truncated or damaged"
            else:
                yield f"{file}: is another image than the recorded one"
    for path in sorted([*folder.glob("images/*"), *folder.glob("*.tmp")]):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".tmp":
            yield f"{name}: was left behind by a crash"
        elif name not in hashes:
            yield f"{name}: has no record"


def cost_problems(folder: Path) -> Iterator[str]:
    """Of the lines of costs, from which the seconds of an image are computed."""
    for path in sorted(folder.glob("costs*.jsonl")):
        for number, values in numbered_lines(path):
            if values is None or not is_cost(values):
                yield f"{path.name}, line {number}: is torn or damaged"


def is_cost(values: dict[str, Any]) -> bool:
    return all(is_number(values.get(key)) and values[key] >= 0 for key in COSTS)


def repair_images(folder: Path) -> None:
    """Mend what `check_images` finds. Images without a valid record are set aside, and come back if a line has their
    hash; those that are gone are for the next run to generate. To be called while nobody else writes to the folder.
    """
    for problem in identity_problems(folder):
        path = folder / problem.split(":")[0]
        if path.is_file():
            set_aside(path, folder)
    gather_shards(folder)
    identity = read_identity(folder) if (folder / FILE).is_file() else {}
    bring_back(folder)
    merge_manifests(folder, [record for record in whole_records(folder) if not identity or belongs(record, identity)])
    for name in {problem.split(",")[0] for problem in cost_problems(folder)}:
        whole = [line for line in read_lines(folder / name) if is_cost(line)]
        write_atomically(folder / name, "".join(map(json_line, whole)))
    if not (folder / ENVIRONMENT).is_file():
        write_atomically(folder / ENVIRONMENT, json.dumps(first_environment(folder), indent=2) + "\n")


def bring_back(folder: Path) -> None:
    """Take images out of quarantine whose hash a line of the manifests has, where the image of that line is lost."""
    aside = {sha256_of_file(path): path for path in sorted(folder.glob(f"{QUARANTINE}/*")) if path.is_file()}
    kept = {record.file for record in whole_records(folder)}
    for record in manifest_lines(folder) if aside else ():
        if record.file not in kept and record.sha256 in aside:
            place = folder / record.file
            if place.exists():
                set_aside(place, folder)
            place.parent.mkdir(exist_ok=True)
            aside.pop(record.sha256).rename(place)
            kept.add(record.file)
            log.warning("%s is back from quarantine", place)
