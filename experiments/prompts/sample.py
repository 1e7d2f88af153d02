"""Sample captions independently of the order of files and rows; smaller samples are prefixes of larger ones.

The rank of a row is a keyed hash of its caption, and a sample of n holds the n smallest ranks. Captions that are equal
up to the case of ASCII letters share a rank, so duplicates are removed by keeping each rank once.

The hash determines the prompts of a manifest. It is defined here in integer arithmetic, because a library might change
its own: h starts as the key; for each eight bytes w of the string (A to Z in lower case, little-endian, the last ones
padded with zeros) h becomes mix(h ^ w); the hash is mix(h ^ length in bytes).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BATCH_ROWS = 1 << 16
RANK = pa.field("rank", pa.uint64())
COPIES = pa.field("copies", pa.int64())
WORD = 8  # bytes
WORD_MASKS = np.array([(1 << 8 * n) - 1 for n in range(WORD + 1)], np.uint64)  # keep the first n bytes of a word


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele, Lea & Flood, 2014), a bijection of 64-bit integers."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def lower_case(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert A to Z to lower case; these bytes never occur inside a multi-byte UTF-8 sequence."""
    is_upper = data - np.uint8(ord("A")) < 26  # smaller bytes wrap around
    return data + 32 * is_upper.view(np.uint8)


def hash_strings(strings: pa.StringArray, key: int) -> NDArray[np.uint64]:
    """Keyed 64-bit hashes (N,) of N strings without nulls."""
    _, offset_buffer, data_buffer = strings.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[strings.offset : strings.offset + len(strings) + 1]
    data = np.frombuffer(data_buffer or b"", np.uint8)[offsets[0] : offsets[-1]]
    padded = np.concatenate([lower_case(data), np.zeros(WORD, np.uint8)])
    word_at = np.ndarray(len(data) + 1, "<u8", padded, strides=(1,))  # overlapping words, one for each start byte
    starts, lengths = (offsets[:-1] - offsets[0]).astype(np.int64), np.diff(offsets)
    hashes = np.full(len(strings), key, np.uint64)
    rows = np.arange(len(strings))
    for position in range(0, int(lengths.max(initial=0)), WORD):
        rows = rows[lengths[rows] > position]
        mask = WORD_MASKS[np.minimum(lengths[rows] - position, WORD)]
        hashes[rows] = mix(hashes[rows] ^ (word_at[starts[rows] + position] & mask))
    return mix(hashes ^ lengths.astype(np.uint64))


def rank_captions(captions: pa.StringArray, seed: int) -> NDArray[np.uint64]:
    """Ranks (N,) of N captions without nulls."""
    key = int.from_bytes(hashlib.sha256(f"prompts:{seed}".encode()).digest()[:8], "little")
    return hash_strings(captions, key)


def smallest_ranks(batches: Iterable[pa.RecordBatch], count: int, seed: int) -> pa.Table:
    """Select the rows with the ``count`` smallest ranks, or all rows if there are fewer.

    Memory is bounded by a multiple of ``count`` rows.

    Returns:
        The rows in the order of their ranks, with ``rank`` and ``copies``, the number of rows that share the rank.
    """
    candidates: list[pa.Table] = []
    rows, largest = 0, np.uint64(2**64 - 1)
    for batch in prefetch(batches):
        ranks = rank_captions(batch.column("prompt"), seed)
        small = ranks <= largest
        table = pa.Table.from_batches([batch.filter(pa.array(small))])
        table = table.append_column(RANK, pa.array(ranks[small]))
        candidates.append(table.append_column(COPIES, pa.array(np.ones(len(table), np.int64))))
        rows += len(table)
        if rows >= 2 * count + BATCH_ROWS:
            candidates = [first_of_each_rank(candidates, count)]
            rows = len(candidates[0])
            if rows == count:
                largest = candidates[0]["rank"][-1].as_py()
    return first_of_each_rank(candidates, count) if candidates else pa.table({})


def prefetch(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the same batches, preparing the next one in a thread."""
    iterator = iter(batches)
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, iterator, None)
        while (batch := upcoming.result()) is not None:
            upcoming = pool.submit(next, iterator, None)
            yield batch


def first_of_each_rank(tables: list[pa.Table], count: int) -> pa.Table:
    """Merge tables, keeping one row for each rank: the smallest by all its values, which the order cannot change."""
    table = pa.concat_tables(tables)
    others = [name for name in table.column_names if name not in ("rank", "copies")]
    table = table.sort_by([(name, "ascending") for name in ("rank", *others)])
    ranks = table["rank"].to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], ranks[1:] != ranks[:-1]])[: len(ranks)])
    copies = np.add.reduceat(table["copies"].to_numpy(), starts) if len(starts) else np.empty(0, np.int64)
    first = table.drop_columns("copies").take(pa.array(starts[:count]))
    return first.append_column(COPIES, pa.array(copies[:count]))
