"""Processes that share the work of one command: their part of it, and a GPU of their own for each.

torchrun numbers its processes, and says which GPU is whose. Any other process takes the first GPU that no process of
the same user has taken on this machine, or the one with the fewest, and keeps it until it ends.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

Item = TypeVar("Item")
TAKEN: list[FileLock] = []  # held until the process ends


def torchrun_rank(environment: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """(rank, number of processes) under torchrun with more than one process, otherwise None."""
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= environment.keys() or int(environment["WORLD_SIZE"]) < 2:
        return None
    return int(environment["RANK"]), int(environment["WORLD_SIZE"])


@dataclass(frozen=True)
class Shard:
    """Every ``count``-th prompt from the one at ``index`` (from 0) on."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "1/4"; ValueError for anything else."""
        match = re.fullmatch(r"(\d+)/(\d+)", str(text))
        if not match or not int(match[1]) < int(match[2]):
            raise ValueError(f"shard is I/N with I from 0 to N - 1, as 0/4, 1/4, 2/4, 3/4, not {text!r}")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        return items[self.index :: self.count]


def shard_of_process(text: str | None) -> Shard | None:
    """The part of the prompts that is asked for; under torchrun the one of this process. ValueError if both are."""
    rank = torchrun_rank()
    if rank is None:
        return None if text is None else Shard.parse(text)
    if text is not None:
        raise ValueError("torchrun gives each of its processes a shard: leave shard= out")
    return Shard(*rank)


@cache
def own_device() -> str:
    """Where this process samples and scores for as long as it lives: "cuda:N" or "cpu"."""
    import torch  # here because the command line is read without it

    if not torch.cuda.is_available():
        return "cpu"
    device = choose_device(torch.cuda.device_count(), os.environ, Path(tempfile.gettempdir()))
    torch.cuda.set_device(device)  # also what "cuda" without a number means from now on
    return device


def choose_device(count: int, environment: Mapping[str, str], folder: Path) -> str:
    """The GPU for this process among ``count`` visible ones.

    Args:
        environment: variables; LOCAL_RANK decides where it is set. CUDA_VISIBLE_DEVICES names the GPUs, so that
            processes that see different ones do not count the wrong ones as taken.
        folder: on a disk of this machine, for the locks that mark a GPU as taken.
    """
    if "LOCAL_RANK" in environment:
        return f"cuda:{int(environment['LOCAL_RANK']) % count}"
    visible = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    names = visible if len(visible) == count and all(visible) else [str(index) for index in range(count)]
    locks = folder / f"scalecrafter-gpus-{os.getuid()}"
    locks.mkdir(mode=0o700, exist_ok=True)
    for place in range(1000):  # the first on each GPU, then the second on each, ...
        for index, name in enumerate(names):
            lock = FileLock(locks / f"{name.replace('/', '_')}.{place}")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            TAKEN.append(lock)
            return f"cuda:{index}"
    raise OSError(f"every GPU has 1000 processes: remove {locks} if that is not so")
