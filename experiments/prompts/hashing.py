"""A keyed 64-bit hash of many strings at once.

It decides which prompts a manifest holds, so it is defined here, in integer arithmetic, and not by a library that may
change it: h starts as the key; for each eight bytes w of a string (A to Z in lower case, little-endian, the last ones
padded with zeros) h becomes mix(h ^ w); the hash is mix(h ^ length in bytes).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

WORD = 8  # bytes
WORD_MASKS = np.array([(1 << 8 * n) - 1 for n in range(WORD + 1)], np.uint64)  # keep the first n bytes of a word


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014), a bijection of 64-bit integers."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def lower_case(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A to Z as a to z; no byte of a longer UTF-8 sequence is among them."""
    is_upper = data - np.uint8(ord("A")) < 26  # smaller bytes wrap around
    return data + 32 * is_upper.view(np.uint8)


def hash_strings(strings: pa.StringArray, key: int) -> NDArray[np.uint64]:
    """(N,) hashes of N strings, none of them null. The work grows with the longest of them."""
    _, offset_buffer, data_buffer = strings.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[strings.offset : strings.offset + len(strings) + 1]
    data = np.frombuffer(data_buffer or b"", np.uint8)[offsets[0] : offsets[-1]]
    padded = np.concatenate([lower_case(data), np.zeros(WORD, np.uint8)])
    word_at = np.ndarray(len(data) + 1, "<u8", padded, strides=(1,))  # the eight bytes from every position on
    starts, lengths = (offsets[:-1] - offsets[0]).astype(np.int64), np.diff(offsets)
    hashes = np.full(len(strings), key, np.uint64)
    rows = np.arange(len(strings))
    for position in range(0, int(lengths.max(initial=0)), WORD):
        rows = rows[lengths[rows] > position]
        mask = WORD_MASKS[np.minimum(lengths[rows] - position, WORD)]
        hashes[rows] = mix(hashes[rows] ^ (word_at[starts[rows] + position] & mask))
    return mix(hashes ^ lengths.astype(np.uint64))
