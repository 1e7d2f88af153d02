"""The record of a run's pictures, and how they reach the disk: a crash loses at most the batch in flight.

A picture is written to a temporary name, synced and renamed; only then is its line appended to ``manifest.jsonl``.
What has no valid line is drawn again. Lines hold nothing that differs between two runs of the same cell.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


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
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def read_records(folder: Path) -> list[Record]:
    """Valid records in order of id: those with a whole line and a picture with the recorded hash."""
    path = folder / "manifest.jsonl"
    found: dict[str, Record] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            record = Record(**json.loads(line))
        except (json.JSONDecodeError, TypeError):
            continue  # torn by a crash
        picture = folder / record.file
        if picture.is_file() and hashlib.sha256(picture.read_bytes()).hexdigest() == record.sha256:
            found[record.id] = record
    return [found[key] for key in sorted(found)]


def write_records(folder: Path, records: list[Record]) -> None:
    """Rewrite the manifest, sorted by id, and remove pictures and temporary files that no record names."""
    lines = "".join(json.dumps(asdict(record)) + "\n" for record in sorted(records, key=lambda r: r.id))
    named = {record.file for record in records}
    for path in [*folder.glob("images/*"), *folder.glob("*.tmp")]:
        if path.relative_to(folder).as_posix() not in named:
            path.unlink()
    write_atomically(folder / "manifest.jsonl", lines.encode())


def add_picture(folder: Path, image: NDArray[np.uint8], *, prompt_id: str, prompt: str, seed: int) -> Record:
    """Save (H, W, 3) uint8 as PNG and append its record."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    file = f"images/{prompt_id}.png"
    write_atomically(folder / file, buffer.getvalue())
    height, width = image.shape[:2]
    record = Record(prompt_id, prompt, seed, file, hashlib.sha256(buffer.getvalue()).hexdigest(), height, width)
    with (folder / "manifest.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(record)) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    return record
