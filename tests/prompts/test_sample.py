"""Hashing, ranking and sampling against loops over single rows."""

import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from experiments.prompts import sample
from experiments.prompts.columns import SCHEMA
from experiments.prompts.sample import hash_strings, rank_captions, smallest_ranks
from experiments.prompts.text import clean_caption, clean_captions, is_utf8
from tests.prompts.reference import (
    ODD_CAPTIONS,
    random_captions,
    reference_clean,
    reference_hash,
    reference_prompts,
)

WHITESPACE = [chr(code) for code in range(0x110000) if chr(code).isspace()]


def batches(captions, size):
    rows = [{"prompt": caption, "url": f"http://a/{i}"} for i, caption in enumerate(captions)]
    return [pa.RecordBatch.from_pylist(rows[i : i + size], SCHEMA) for i in range(0, len(rows), size)]


def test_hash_matches_plain_python():
    rng = random.Random(0)
    texts = ["", "a", "b\0", "b", "abcdefgh", "abcdefghi", "h\u00e9", "H\u00c9 @AZ[`az{", "x" * 1000]
    texts += ["".join(rng.choices("ab \u00e9\u65e5", k=rng.randint(0, 40))) for _ in range(500)]
    for key in (0, 1, 2**64 - 1):
        expected = [reference_hash(text, key) for text in texts]
        assert hash_strings(pa.array(texts), key).tolist() == expected
        assert hash_strings(pa.array(["before", *texts, "after"])[1:-1], key).tolist() == expected
        assert hash_strings(pa.array([], pa.string()), key).tolist() == []


def test_hash_has_golden_values():
    """Manifests depend on these values: if they change, raise `build.RULES_VERSION`."""
    assert hash_strings(pa.array(["", "a red fox in the snow"]), 7).tolist() == [
        1346066267577507604,
        13504848698756784117,
    ]


def test_hash_bits_are_uniform():
    """Each bit is set in about half of the hashes, even for texts that differ in one character."""
    hashes = hash_strings(pa.array([f"image {i:06d}" for i in range(20000)]), 0)
    bits = (hashes[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.02  # 5.6 standard errors
    assert len(set(hashes.tolist())) == len(hashes)


def test_cleaning_matches_plain_python():
    texts = [f"a{space}b" for space in WHITESPACE] + [f"a{space}" for space in WHITESPACE] + [" a", "a  b", "a b"]
    texts += [
        "a\u200bb",
        "na\u00efve \u2014 text",
        "x<y",
        "x < y",
        *(text for text in ODD_CAPTIONS if text is not None),
    ]
    expected = [reference_clean(text) for text in texts]
    assert [clean_caption(text) for text in texts] == expected
    assert clean_captions(pa.array(texts)).to_pylist() == expected


def test_invalid_utf8_is_found_by_row():
    texts = pa.array([b"good", b"\xff", None, b"\xc3\xa9"]).view(pa.string())
    assert is_utf8(texts).tolist() == [True, False, True, True]


@pytest.mark.parametrize(("size", "batch_rows"), [(7, 10), (1000, 10), (100000, 1 << 16)])
@pytest.mark.parametrize("count", [1, 50, 100000])
def test_sample_matches_plain_python_in_any_order(monkeypatch, size, batch_rows, count):
    monkeypatch.setattr(sample, "BATCH_ROWS", batch_rows)
    captions = [clean_caption(text) for text in random_captions(1000) if text and clean_caption(text)]
    captions = [text for text in captions if len(text) <= 4096]
    expected = reference_prompts(captions, count)
    for order in range(2):
        random.Random(order).shuffle(captions)
        found = smallest_ranks(batches(captions, size), count, seed=0)
        assert found["prompt"].to_pylist() == expected
        copies = Counter(rank_captions(pa.array(captions), 0).tolist())
        assert found["copies"].to_pylist() == [copies[rank] for rank in found["rank"].to_pylist()]


def test_smaller_samples_are_prefixes_and_seeds_differ():
    captions = [f"image {i}" for i in range(5000)]
    large = smallest_ranks(batches(captions, 512), 3000, seed=1)["prompt"].to_pylist()
    for count in (1, 100, 1000):
        assert smallest_ranks(batches(captions, 512), count, seed=1)["prompt"].to_pylist() == large[:count]
    other = smallest_ranks(batches(captions, 512), 1000, seed=2)["prompt"].to_pylist()
    assert 100 < len(set(other) & set(large[:1000])) < 300  # 200 expected by chance


def test_same_duplicate_is_kept_in_any_order():
    rows = [{"prompt": prompt, "url": url} for prompt in ("a cat", "A cat") for url in ("http://b", "http://a", None)]
    for order in range(5):
        random.Random(order).shuffle(rows)
        found = smallest_ranks([pa.RecordBatch.from_pylist([row], SCHEMA) for row in rows], 10, seed=0)
        assert found.select(["prompt", "url", "copies"]).to_pylist() == [
            {"prompt": "A cat", "url": "http://a", "copies": 6}
        ]
