"""A sample that depends on neither the order of files nor that of rows, and whose smaller sizes are its prefixes.

A row's rank is a hash of its caption, keyed by the seed; the sample of n is the n smallest ranks. Captions that are
the same up to the case of ASCII letters have one rank, so removing duplicates is keeping each rank once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from experiments.prompts.hashing import hash_strings

AT_ONCE = 1 << 16  # rows
RANK = pa.field("rank", pa.uint64())
COPIES = pa.field("copies", pa.int64())


def rank_captions(captions: pa.StringArray, seed: int) -> NDArray[np.uint64]:
    """(N,) ranks of N captions, none of them null."""
    key = int.from_bytes(hashlib.sha256(f"prompts:{seed}".encode()).digest()[:8], "little")
    return hash_strings(captions, key)


def smallest_ranks(batches: Iterable[pa.RecordBatch], count: int, seed: int) -> pa.Table:
    """The rows of the ``count`` smallest ranks in their order, or all if there are fewer, with ``rank`` and
    ``copies``, the number of rows that share it. Never holds more than some multiple of ``count`` rows.
    """
    waiting: list[pa.Table] = []
    rows, largest = 0, np.uint64(2**64 - 1)
    for batch in made_ahead(batches):
        ranks = rank_captions(batch.column("prompt"), seed)
        candidates = ranks <= largest
        chosen = pa.Table.from_batches([batch.filter(pa.array(candidates))])
        chosen = chosen.append_column(RANK, pa.array(ranks[candidates]))
        waiting.append(chosen.append_column(COPIES, pa.array(np.ones(len(chosen), np.int64))))
        rows += len(chosen)
        if rows >= 2 * count + AT_ONCE:
            waiting = [first_of_each_rank(waiting, count)]
            rows = len(waiting[0])
            if rows == count:
                largest = waiting[0]["rank"][-1].as_py()
    return first_of_each_rank(waiting, count) if waiting else pa.table({})


def made_ahead(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same batches; while one is worked on, another thread makes the next."""
    iterator = iter(batches)
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, iterator, None)
        while (batch := upcoming.result()) is not None:
            upcoming = pool.submit(next, iterator, None)
            yield batch


def first_of_each_rank(tables: list[pa.Table], count: int) -> pa.Table:
    """Of rows with equal ranks the first in the order of all their values, which no order of reading changes."""
    table = pa.concat_tables(tables)
    others = [name for name in table.column_names if name not in ("rank", "copies")]
    table = table.sort_by([(name, "ascending") for name in ("rank", *others)])
    ranks = table["rank"].to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], ranks[1:] != ranks[:-1]])[: len(ranks)])
    copies = np.add.reduceat(table["copies"].to_numpy(), starts) if len(starts) else np.empty(0, np.int64)
    first = table.drop_columns("copies").take(pa.array(starts[:count]))
    return first.append_column(COPIES, pa.array(copies[:count]))
