"""Shares of a run, drawn side by side by processes that only share a folder: `share=1/4` is the second quarter.

Each has a lock of its own. Whoever draws the whole run, or puts the shares together, holds the run's lock and all of
theirs; a share starts while nobody holds the run's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

WAIT = 1.0  # seconds between looks at a lock that is held
Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """Every ``count``-th prompt from the one at ``index``, which counts from 0."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """From "1/4"; ValueError for anything else."""
        match = re.fullmatch(r"(\d+)/(\d+)", str(text))
        if not match or not int(match[1]) < int(match[2]):
            raise ValueError(f"share is I/N with I from 0 to N - 1, as 0/4, 1/4, 2/4, 3/4, not {text!r}")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        return items[self.index :: self.count]


def run_lock(folder: Path) -> FileLock:
    return FileLock(folder / ".lock")


@contextmanager
def drawing_whole(folder: Path) -> Iterator[None]:
    """Alone in the folder: waits until no share is being drawn."""
    with run_lock(folder), ExitStack() as others:
        for path in sorted(folder.glob(".lock-*")):
            others.enter_context(FileLock(path))
        yield


@contextmanager
def drawing_share(folder: Path, share: Share) -> Iterator[None]:
    """Beside other shares: waits until nobody draws this one, or the whole."""
    own = FileLock(folder / f".lock-{share}")
    while True:
        with run_lock(folder):
            try:
                own.acquire(timeout=0)
                break
            except Timeout:
                pass
        time.sleep(WAIT)
    try:
        yield
    finally:
        own.release()
