"""Atomic file writes: a reader sees the old file or the complete new one, never a part of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` for writing and rename it to ``path`` on success.

    Missing parent folders are created. The temporary name ends in ".tmp" and is unique, so concurrent writers do not
    mix their bytes: the last one to finish wins. If the body raises, ``path`` stays as it was.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("xb") as file:  # unlike tempfile, respects the umask
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8) to ``path`` with `open_atomically`.

    Who cleans a folder up after killed processes may remove the temporary file of this one too: then it is written
    again.
    """
    content = data.encode("utf-8") if isinstance(data, str) else data
    try:
        _write(path, content)
    except FileNotFoundError:
        _write(path, content)


def _write(path: Path, content: bytes) -> None:
    with open_atomically(path) as file:
        file.write(content)


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, each flushed to disk as an entry of its own parent."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
