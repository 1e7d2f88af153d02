"""Manifests against a plain Python implementation of the rules, their provenance, and errors of the build."""

import hashlib
import json
import math
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from experiments.prompts.filters import FILTER_COLUMNS, Filters
from tests.prompts.reference import (
    build,
    prompt_id,
    prompts_of,
    random_captions,
    reference_prompts,
    write_image_folder,
    write_image_tars,
    write_parquet,
)


@pytest.fixture
def captions():
    return random_captions(2000)


def test_manifest_matches_plain_python(tmp_path, captions):
    source = write_parquet(tmp_path / "a.parquet", captions)
    everything = reference_prompts(captions, len(captions), seed=3)
    rows, provenance = build(tmp_path, source, count=len(everything), seed=3)
    assert prompts_of(rows) == everything
    assert [row["id"] for row in rows] == [prompt_id(prompt) for prompt in everything]
    usable = len(captions) - sum(provenance["dropped"].values())
    assert usable == len(everything) + provenance["duplicates"]
    assert provenance["read"] == len(captions)
    assert provenance["dropped"]["caption over 4096 bytes"] == 1


def test_manifest_is_independent_of_order_files_and_format(tmp_path, captions):
    captions = [text for text in captions if text and text.strip() and "\n" not in text]
    first, _ = build(tmp_path, write_parquet(tmp_path / "a.parquet", captions), count=100)
    random.Random(1).shuffle(captions)
    parts = tmp_path / "parts"
    parts.mkdir()
    write_parquet(parts / "z.parquet", captions[:300])
    write_parquet(parts / "a.parquet", captions[300:900])
    (parts / "b.txt").write_text("\n".join(captions[900:]) + "\n", encoding="utf-8")
    second, _ = build(tmp_path, parts, count=100)
    assert first == second


def test_smaller_manifest_is_a_prefix(tmp_path, captions):
    source = write_parquet(tmp_path / "a.parquet", captions)
    large, about_large = build(tmp_path, source, count=500)
    for count in (1, 10, 100):
        small, about_small = build(tmp_path, source, count=count)
        assert small == large[:count]
        assert about_small["identity"] == about_large["identity"]


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({}, "abcdef"),
        ({"min_side": 512}, "abd"),
        ({"max_aspect": 2.0}, "abce"),
        ({"max_punsafe": 0.5}, "ac"),
        ({"max_pwatermark": 0.5}, "bc"),
        ({"min_aesthetic": 5.0}, "abe"),
        ({"languages": ("EN", "fr")}, "abe"),
        ({"min_side": 512, "max_punsafe": 0.5}, "a"),
    ],
)
def test_filters_apply_documented_bounds(tmp_path, filters, left):
    """Rows with unknown values are dropped."""
    source = write_parquet(
        tmp_path / "a.parquet",
        list("abcdef"),
        WIDTH=[512.0, 1024.0, 511.0, 4096.0, 400.0, math.nan],
        HEIGHT=pa.array([512, 512, 512, 600, 300, 512], pa.int32()),
        punsafe=pa.array([0.49, 0.5, 0.0, 0.9, None, 1.0], pa.float32()),
        pwatermark=pa.array([0.5, 0.25, 0.0, 0.9, None, 1.0], pa.float32()),
        AESTHETIC_SCORE=[5.0, 5.5, 4.5, 1.0, 9.0, None],
        LANGUAGE=["en", "En", "de", "", "fr", None],
    )
    rows, provenance = build(tmp_path, source, count=len(left), filters=Filters(**filters))
    assert sorted(prompts_of(rows)) == sorted(left)
    assert sum(provenance["dropped"].values()) == 6 - len(left)
    assert set(provenance["dropped"]) <= set(filters)
    assert provenance["filters"] == filters | ({"languages": ("EN", "fr")} if "languages" in filters else {})


def test_filter_without_its_column_raises(tmp_path):
    write_parquet(tmp_path / "a.parquet", ["a"], URL=["http://a"])
    for name, columns in FILTER_COLUMNS.items():
        value = ("en",) if name == "languages" else 1
        with pytest.raises(ValueError, match=f"a.parquet has no column {columns[0]}.* for the filter {name}"):
            build(tmp_path, tmp_path / "a.parquet", count=1, filters=Filters(**{name: value}))


def test_denied_prompts_are_replaced_by_the_next_in_rank(tmp_path):
    texts = [f"image {i}" for i in range(100)]
    source = write_parquet(tmp_path / "a.parquet", texts, url=[f"http://a/{text[6:]}" for text in texts])
    everything, _ = build(tmp_path, source, count=100)
    denied = tmp_path / "denied.txt"
    urls = [everything[2]["url"], everything[50]["url"]]
    whole = hashlib.sha256(everything[1]["prompt"].encode()).hexdigest().upper()
    denied.write_text("\n".join(["# takedowns", everything[0]["id"], "", whole, *urls]) + "\n")
    rows, provenance = build(tmp_path, source, count=30, denylist=denied)
    assert rows == everything[3:33]
    assert provenance["dropped"] == {"denied id": 2, "denied url": 2}
    assert len(build(tmp_path, source, count=96, denylist=denied)[0]) == 96


def test_invalid_denylist_raises(tmp_path):
    source = write_parquet(tmp_path / "a.parquet", ["a"])
    denied = tmp_path / "denied.txt"
    with pytest.raises(FileNotFoundError, match=r"no denylist at .*denied.txt"):
        build(tmp_path, source, count=1, denylist=denied)
    denied.write_text("http://a\n")
    with pytest.raises(ValueError, match=r"no column url for the 1 urls"):
        build(tmp_path, source, count=1, denylist=denied)
    denied.write_text("# fine\nsomething\n")
    with pytest.raises(ValueError, match=r"line 2 of .*denied.txt is not a prompt id"):
        build(tmp_path, source, count=1, denylist=denied)


def test_known_size_and_url_are_kept(tmp_path):
    source = write_parquet(
        tmp_path / "a.parquet", ["a", "b"], url=["http://a", None], width=[640.0, math.nan], height=[480, None]
    )
    rows, _ = build(tmp_path, source, count=2)
    assert {row["prompt"]: row for row in rows} == {
        "a": {"id": prompt_id("a"), "prompt": "a", "width": 640, "height": 480, "url": "http://a"},
        "b": {"id": prompt_id("b"), "prompt": "b"},
    }


@pytest.mark.parametrize("write", [write_image_folder, write_image_tars])
def test_image_sets_keep_the_image_file(tmp_path, write):
    rows, provenance = build(tmp_path, write(tmp_path / "set"), count=1, filters=Filters(min_side=45))
    assert rows[0]["prompt"] == "schr\u00e4g & hoch"
    assert (rows[0]["height"], rows[0]["width"]) == (64, 48)
    if write is write_image_folder:
        assert Image.open(rows[0]["image"]).size == (48, 64)
    else:
        assert rows[0]["image"].endswith("00000.tar")
        assert rows[0]["member"] == "000000001.jpg"
    assert provenance["dropped"] == {"broken row": 2, "image does not decode": 1, "min_side": 1}
    assert provenance["read"] == 5


def test_broken_rows_are_counted(tmp_path):
    texts = pa.array([b"fine", b"\xff\xfe", None, b"<p> </p>", b"\xc3\xa9"]).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    rows, provenance = build(tmp_path, tmp_path / "a.parquet", count=2)
    assert sorted(prompts_of(rows)) == ["fine", "\u00e9"]
    assert provenance["dropped"] == {"broken row": 1, "no caption": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 4}, r"only 3 different prompts are left of 5 rows, 4 were requested: .*\(dropped: no caption 1\)"),
        (
            {"count": 1, "filters": Filters(min_side=999)},
            r"only 0 .*\(dropped: min_side 4, no caption 1\)",
        ),
        ({"count": 0}, "count must be at least 1"),
        ({"count": 1, "out": "prompts.json"}, "must end in .jsonl"),
    ],
)
def test_nothing_is_written_on_error(tmp_path, options, message):
    source = write_parquet(tmp_path / "a.parquet", ["a", "b", "c", "C", None], width=[9] * 5, height=[9] * 5)
    with pytest.raises(ValueError, match=message):
        build(tmp_path, source, **{"out": "new/prompts.jsonl"} | options)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_damaged_source_leaves_existing_manifest_unchanged(tmp_path):
    source = write_parquet(tmp_path / "a.parquet", ["a", "b"])
    build(tmp_path, source, count=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "b.parquet").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"b.parquet is damaged"):
        build(tmp_path, source, tmp_path / "b.parquet", count=1)
    (tmp_path / "b.parquet").unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_provenance_describes_sources_and_sampling(tmp_path):
    source = write_parquet(tmp_path / "a.parquet", ["a", "b"])
    _, provenance = build(tmp_path, source, count=2, seed=5)
    assert json.loads((tmp_path / "prompts.json").read_text()) == provenance
    assert provenance["sha256"] == hashlib.sha256((tmp_path / "prompts.jsonl").read_bytes()).hexdigest()
    data = source.read_bytes()
    facts = {"path": str(source), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert provenance["sources"] == [facts]
    assert (provenance["seed"], provenance["count"], provenance["read"]) == (5, 2, 2)
