"""The record of a run's images, and how they reach the disk: a crash loses at most the batch in flight.

An image is written to a temporary name, synced and renamed; only then is its line appended to the manifest. An image
without a valid line is generated again, and set aside, not deleted. Lines hold nothing that differs between two runs
with the same identity. While processes generate shards of a run in parallel, each appends to a manifest of its own;
together they are one, and in the end they become one file.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.files import write_atomically
from eval.images import ImageFile
from eval.index import ImageInfo, confirm, remember

NAME, QUARANTINE = "manifest.jsonl", "quarantine"
FEATURES = "features"  # the folder of a run's features, with the index of its images
IMAGE_FILE = re.compile(r"images/[^/\\]+")  # nothing outside the run folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """One finished image."""

    id: str
    prompt: str
    seed: int
    file: str
    sha256: str
    height: int
    width: int


def manifests(folder: Path) -> list[Path]:
    """The manifest of a run, and those of shards that are or were being generated."""
    return sorted(folder.glob("manifest*.jsonl"))


def read_records(folder: Path, *, trust: bool = True) -> list[Record]:
    """Valid records in order of id: those with a whole line and an image with the recorded hash.

    An image is hashed once, and again when its stamp has changed (`eval.index`); with ``trust=False`` in any case.
    """
    records = list({(str(r.id), str(r.file), str(r.sha256)): r for r in manifest_lines(folder)}.values())
    valid = confirm(*indexed(folder, records), folder / FEATURES, trust=trust) if records else []
    found = {record.id: record for record, good in zip(records, valid, strict=True) if good}
    return [found[key] for key in sorted(found)]


def indexed(folder: Path, records: Sequence[Record]) -> tuple[list[ImageFile], list[ImageInfo]]:
    """The images of records, and what the records say about them."""
    images = [ImageFile(folder / record.file, record.id) for record in records]
    return images, [ImageInfo(record.sha256, record.height, record.width) for record in records]


def remember_images(folder: Path, records: Sequence[Record]) -> None:
    """Spare `read_records` the hashing of images that were saved just now."""
    if records:
        remember(*indexed(folder, records), folder / FEATURES)


def finished_ids(folder: Path) -> set[str]:
    """Ids that have a whole line; their images are not read."""
    return {record.id for record in manifest_lines(folder)}


def manifest_lines(folder: Path) -> Iterator[Record]:
    """Every whole line of the manifests."""
    for path in manifests(folder):
        for line in read_lines(path):
            try:
                record = Record(**line)
            except TypeError:
                continue
            if IMAGE_FILE.fullmatch(str(record.file)):
                yield record


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON lines file; lines that are damaged, or torn by a crash, are skipped."""
    for line in path.read_bytes().split(b"\n"):
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict):
            yield values


def merge_manifests(folder: Path, records: list[Record]) -> None:
    """Make one manifest, sorted by id; remove temporary files, and set aside images that no record names."""
    lines = "".join(json.dumps(asdict(record)) + "\n" for record in sorted(records, key=lambda r: r.id))
    named = {record.file for record in records}
    for path in [*folder.glob("*.tmp"), *folder.glob("images/*.tmp")]:
        path.unlink()
    for path in folder.glob("images/*"):
        if path.relative_to(folder).as_posix() not in named:
            set_aside(path)
    for path in folder.glob(f"{QUARANTINE}/*"):
        again = folder / "images" / path.name
        if again.is_file() and again.read_bytes() == path.read_bytes():
            path.unlink()  # generated again, with the same bytes
    write_atomically(folder / NAME, lines.encode())
    for path in manifests(folder):
        if path.name != NAME:
            path.unlink()


def set_aside(image: Path) -> None:
    """Move an image without a valid record out of the way: if its manifest was damaged, it may be worth hours."""
    folder = image.parent.parent / QUARANTINE
    folder.mkdir(exist_ok=True)
    place, count = folder / image.name, 1
    while place.exists():
        place, count = folder / f"{image.stem}-{count}{image.suffix}", count + 1
    image.rename(place)
    log.warning("%s has no valid record and is now at %s", image, place)


def save_image(
    folder: Path, image: NDArray[np.uint8], *, prompt_id: str, prompt: str, seed: int, manifest: str = NAME
) -> Record:
    """Save (H, W, 3) uint8 as PNG and append its record to the manifest of that name."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    file = f"images/{prompt_id}.png"
    write_atomically(folder / file, buffer.getvalue())
    height, width = image.shape[:2]
    record = Record(prompt_id, prompt, seed, file, hashlib.sha256(buffer.getvalue()).hexdigest(), height, width)
    append_line(folder / manifest, asdict(record))
    return record


def append_line(path: Path, values: Mapping[str, object]) -> None:
    """Append one JSON line, synced; a line that a crash has torn before it is ended first."""
    with path.open("ab+") as stream:
        if stream.tell() and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n":
            stream.write(b"\n")
        stream.write(json.dumps(values).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
