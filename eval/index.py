"""What is known of pictures without reading them again: hash and size under the stamp of each file, as git does it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from tqdm import tqdm

from eval.images import Picture

FILE = "index.json"


@dataclass(frozen=True)
class Facts:
    """Hex SHA-256 of what decides the pixels, and the size."""

    digest: str
    height: int
    width: int


def look_up(pictures: Sequence[Picture], cache_dir: Path) -> list[Facts]:
    """Facts of each picture: from ``cache_dir`` where its stamp is known, else by reading it once.

    Raises:
        ValueError: a picture that cannot be read; what was found before it is kept.
        FileNotFoundError: a picture that is gone.
    """
    stamps = [picture.stamp() for picture in pictures]
    known = read_index(cache_dir / FILE)
    pending = {stamp: picture for stamp, picture in zip(stamps, pictures, strict=True) if stamp not in known}
    try:
        for stamp, picture in tqdm(pending.items(), desc="looking at pictures", unit="img", leave=False, disable=None):
            known[stamp] = Facts(picture.digest(), *picture.size())
    finally:
        if pending:
            write_index(cache_dir / FILE, known)
    return [known[stamp] for stamp in stamps]


def read_index(path: Path) -> dict[str, Facts]:
    """The index, empty if there is none or it is damaged (then it is made again)."""
    try:
        return {stamp: Facts(*values) for stamp, values in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_index(path: Path, known: dict[str, Facts]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps({stamp: astuple(facts) for stamp, facts in known.items()}), encoding="utf-8")
    temporary.replace(path)


def require_one_size(pictures: Sequence[Picture], facts: Sequence[Facts]) -> tuple[int, int]:
    """(height, width) of all pictures; ValueError naming two that differ."""
    first = (facts[0].height, facts[0].width)
    for picture, each in zip(pictures, facts, strict=True):
        if (each.height, each.width) != first:
            raise ValueError(
                f"{picture} is {each.height}x{each.width}, but {pictures[0]} is {first[0]}x{first[1]} "
                "(height x width): score generated images of one size at a time"
            )
    return first
