"""The record of a run's pictures, and how they reach the disk: a crash loses at most the batch in flight.

A picture is written to a temporary name, synced and renamed; only then is its line appended to the manifest. What has
no valid line is drawn again. Lines hold nothing that differs between two runs of the same cell. While processes draw
shares of a run side by side, each appends to a manifest of its own; together they are one, and in the end they become
one file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NAME = "manifest.jsonl"


@dataclass(frozen=True)
class Record:
    """One finished picture."""

    id: str
    prompt: str
    seed: int
    file: str
    sha256: str
    height: int
    width: int


def write_atomically(path: Path, data: bytes) -> None:
    """Write, sync and rename: the file is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")  # two processes may write the same file
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def disk_needed(height: int, width: int, count: int) -> int:
    """Bytes that so many pictures take at most: a PNG is smaller than its pixels."""
    return 3 * height * width * count


def manifests(folder: Path) -> list[Path]:
    """The manifest of a run, and those of shares that are or were being drawn."""
    return sorted(folder.glob("manifest*.jsonl"))


def read_records(folder: Path) -> list[Record]:
    """Valid records in order of id: those with a whole line and a picture with the recorded hash."""
    found: dict[str, Record] = {}
    for record in recorded(folder):
        picture = folder / record.file
        if picture.is_file() and hashlib.sha256(picture.read_bytes()).hexdigest() == record.sha256:
            found[record.id] = record
    return [found[key] for key in sorted(found)]


def recorded_ids(folder: Path) -> set[str]:
    """Ids that have a whole line, whatever has become of their pictures."""
    return {record.id for record in recorded(folder)}


def recorded(folder: Path) -> Iterator[Record]:
    """Every whole line of the manifests."""
    for path in manifests(folder):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield Record(**json.loads(line))
            except (json.JSONDecodeError, TypeError):
                continue  # torn by a crash


def write_records(folder: Path, records: list[Record]) -> None:
    """Make one manifest, sorted by id, and remove pictures and temporary files that no record names."""
    lines = "".join(json.dumps(asdict(record)) + "\n" for record in sorted(records, key=lambda r: r.id))
    named = {record.file for record in records}
    for path in [*folder.glob("images/*"), *folder.glob("*.tmp")]:
        if path.relative_to(folder).as_posix() not in named:
            path.unlink()
    write_atomically(folder / NAME, lines.encode())
    for path in manifests(folder):
        if path.name != NAME:
            path.unlink()


def add_picture(
    folder: Path, image: NDArray[np.uint8], *, prompt_id: str, prompt: str, seed: int, manifest: str = NAME
) -> Record:
    """Save (H, W, 3) uint8 as PNG and append its record to the manifest of that name."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    file = f"images/{prompt_id}.png"
    write_atomically(folder / file, buffer.getvalue())
    height, width = image.shape[:2]
    record = Record(prompt_id, prompt, seed, file, hashlib.sha256(buffer.getvalue()).hexdigest(), height, width)
    with (folder / manifest).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(record)) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    return record
