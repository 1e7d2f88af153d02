"""Rows that must not become prompts: takedowns, a file with one of them a line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

HASH = re.compile(r"[0-9a-f]{16}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Denylist:
    """``ids`` of prompts, and ``urls``."""

    ids: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()


def read_denylist(path: Path) -> Denylist:
    """Lines are ids (16 hexadecimal digits), SHA-256 of prompts (64), or urls; # starts a comment line. ValueError for
    any other line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no denylist at {path}")
    ids, urls = set(), set()
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        entry = line.strip()
        if HASH.fullmatch(entry.lower()):
            ids.add(entry.lower()[:16])  # an id is the beginning of the hash
        elif "://" in entry:
            urls.add(entry)
        elif entry and not entry.startswith("#"):
            raise ValueError(f"line {number} of {path} is no id, SHA-256 of a prompt, or url: {entry[:60]!r}")
    return Denylist(frozenset(ids), frozenset(urls))
