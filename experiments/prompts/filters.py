"""Which rows of the metadata may become prompts: filters on their columns, and a denylist of takedowns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

FILTER_COLUMNS = {
    "min_side": ("width", "height"),
    "max_aspect": ("width", "height"),
    "max_punsafe": ("punsafe",),
    "max_pwatermark": ("pwatermark",),
    "min_aesthetic": ("aesthetic",),
    "languages": ("language",),
}
HASH = re.compile(r"[0-9a-f]{16}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Filters:
    """Filters to apply; None and an empty tuple are off. Rows with an unknown value are dropped."""

    min_side: int | None = None  # shorter side in pixels, at least
    max_aspect: float | None = None  # longer side / shorter side, at most
    max_punsafe: float | None = None  # probability, below
    max_pwatermark: float | None = None  # probability, below
    min_aesthetic: float | None = None  # score, at least
    languages: tuple[str, ...] = ()

    def active(self) -> dict[str, int | float | tuple[str, ...]]:
        """Name and value of each filter that is on."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value not in (None, ())}


@dataclass(frozen=True)
class Denylist:
    """Prompts that must not be used, by id and by url."""

    ids: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()


def apply_filters(batch: pa.RecordBatch, filters: Filters) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the name of each active filter and which rows pass it (N,). Unknown values are NaN and compare false."""
    values = {
        name: batch.column(name).to_numpy(zero_copy_only=False)
        for name in ("width", "height", "punsafe", "pwatermark", "aesthetic")
    }
    shorter = np.minimum(values["width"], values["height"])
    if filters.min_side is not None:
        yield "min_side", shorter >= filters.min_side
    if filters.max_aspect is not None:
        yield "max_aspect", np.maximum(values["width"], values["height"]) <= filters.max_aspect * shorter
    if filters.max_punsafe is not None:
        yield "max_punsafe", values["punsafe"] < filters.max_punsafe
    if filters.max_pwatermark is not None:
        yield "max_pwatermark", values["pwatermark"] < filters.max_pwatermark
    if filters.min_aesthetic is not None:
        yield "min_aesthetic", values["aesthetic"] >= filters.min_aesthetic
    if filters.languages:
        known = pa.array([language.lower() for language in filters.languages], pa.string())
        yield "languages", pc.is_in(pc.ascii_lower(batch.column("language")), known).to_numpy(zero_copy_only=False)


def read_denylist(path: Path) -> Denylist:
    """Read a denylist with one entry per line; empty lines and lines starting with # are ignored.

    An entry is a prompt id (16 hexadecimal digits), the SHA-256 of a prompt (64), or a url.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is none of these.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no denylist at {path}")
    ids, urls = set(), set()
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        entry = line.strip()
        if HASH.fullmatch(entry.lower()):
            ids.add(entry.lower()[:16])  # an id is a prefix of the SHA-256
        elif "://" in entry:
            urls.add(entry)
        elif entry and not entry.startswith("#"):
            raise ValueError(f"line {number} of {path} is not a prompt id, a SHA-256 or a url: {entry[:60]!r}")
    return Denylist(frozenset(ids), frozenset(urls))
