"""`python -m experiments.prompts build`: manifests against a plain Python reference, and what runs make of them."""

import hashlib
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from experiments.prompts import Prompt, load_prompts, prompts_identity
from experiments.prompts.__main__ import main
from experiments.prompts.filters import NEEDS, Filters
from experiments.prompts.synthetic import main as write_synthetic_files
from experiments.prompts.synthetic import synthetic_rows
from experiments.setup.config import compose_config
from tests.experiments.prompts_reference import (
    build,
    prompts_of,
    random_captions,
    reference_prompts,
    write_image_folder,
    write_image_tars,
    write_parquet,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def captions():
    return random_captions(2000)


def prompt_id(prompt):
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def test_a_manifest_is_that_of_a_loop(tmp_path, captions):
    source = write_parquet(tmp_path / "a.parquet", captions)
    everything = reference_prompts(captions, len(captions), seed=3)
    rows, provenance = build(tmp_path, source, count=len(everything), seed=3)
    assert prompts_of(rows) == everything
    assert [row["id"] for row in rows] == [prompt_id(prompt) for prompt in everything]
    usable = len(captions) - sum(provenance["dropped"].values())
    assert usable == len(everything) + provenance["duplicates"]
    assert provenance["read"] == len(captions)
    assert provenance["dropped"]["caption over 4096 bytes"] == 1


def test_neither_order_nor_splitting_nor_format_matters(tmp_path, captions):
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


def test_a_smaller_manifest_is_the_beginning_of_a_larger_one(tmp_path, captions):
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
def test_each_filter_drops_what_it_says(tmp_path, filters, left):
    """Bounds as documented, and what is unknown does not pass."""
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


@pytest.mark.parametrize("name", NEEDS)
def test_a_filter_without_its_column_is_refused(tmp_path, name):
    write_parquet(tmp_path / "a.parquet", ["a"], URL=["http://a"])
    value = ("en",) if name == "languages" else 1
    with pytest.raises(ValueError, match=f"a.parquet has no column {NEEDS[name][0]}.* for the filter {name}"):
        build(tmp_path, tmp_path / "a.parquet", count=1, filters=Filters(**{name: value}))


def test_the_denylist_takes_away_ids_hashes_and_urls_and_the_next_take_their_place(tmp_path):
    texts = [f"picture {i}" for i in range(100)]
    source = write_parquet(tmp_path / "a.parquet", texts, url=[f"http://a/{text[8:]}" for text in texts])
    everything, _ = build(tmp_path, source, count=100)
    denied = tmp_path / "denied.txt"
    urls = [everything[2]["url"], everything[50]["url"]]
    whole = hashlib.sha256(everything[1]["prompt"].encode()).hexdigest().upper()
    denied.write_text("\n".join(["# takedowns", everything[0]["id"], "", whole, *urls]) + "\n")
    rows, provenance = build(tmp_path, source, count=30, denylist=denied)
    assert rows == everything[3:33]
    assert provenance["dropped"] == {"denied id": 2, "denied url": 2}
    assert len(build(tmp_path, source, count=96, denylist=denied)[0]) == 96


def test_what_a_denylist_cannot_be(tmp_path):
    source = write_parquet(tmp_path / "a.parquet", ["a"])
    denied = tmp_path / "denied.txt"
    with pytest.raises(FileNotFoundError, match=r"no denylist at .*denied.txt"):
        build(tmp_path, source, count=1, denylist=denied)
    denied.write_text("http://a\n")
    with pytest.raises(ValueError, match=r"no column url for the 1 urls"):
        build(tmp_path, source, count=1, denylist=denied)
    denied.write_text("# fine\nsomething\n")
    with pytest.raises(ValueError, match=r"line 2 of .*denied.txt is no id"):
        build(tmp_path, source, count=1, denylist=denied)


def test_size_and_url_are_kept_where_known(tmp_path):
    source = write_parquet(
        tmp_path / "a.parquet", ["a", "b"], url=["http://a", None], width=[640.0, math.nan], height=[480, None]
    )
    rows, _ = build(tmp_path, source, count=2)
    assert {row["prompt"]: row for row in rows} == {
        "a": {"id": prompt_id("a"), "prompt": "a", "width": 640, "height": 480, "url": "http://a"},
        "b": {"id": prompt_id("b"), "prompt": "b"},
    }


@pytest.mark.parametrize("write", [write_image_folder, write_image_tars])
def test_real_pictures_come_with_their_file(tmp_path, write):
    rows, provenance = build(tmp_path, write(tmp_path / "set"), count=1, filters=Filters(min_side=45))
    assert rows[0]["prompt"] == "schr\u00e4g & hoch"
    assert (rows[0]["height"], rows[0]["width"]) == (64, 48)
    if write is write_image_folder:
        assert Image.open(rows[0]["image"]).size == (48, 64)
    else:
        assert rows[0]["image"].endswith("00000.tar")
        assert rows[0]["member"] == "000000001.jpg"
    assert provenance["dropped"] == {"broken row": 2, "min_side": 1, "picture does not decode": 1}
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
        ({"count": 4}, r"3 different prompts are left of 5 rows, 4 were asked for: .*\(no caption 1\)"),
        ({"count": 1, "filters": Filters(min_side=999)}, r"0 different prompts .*\(min_side 4, no caption 1\)"),
        ({"count": 0}, "count must be at least 1"),
        ({"count": 1, "out": "prompts.json"}, "must end in .jsonl"),
    ],
)
def test_nothing_is_written_if_something_is_wrong(tmp_path, options, message):
    source = write_parquet(tmp_path / "a.parquet", ["a", "b", "c", "C", None], width=[9] * 5, height=[9] * 5)
    with pytest.raises(ValueError, match=message):
        build(tmp_path, source, **{"out": "new/prompts.jsonl"} | options)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_damaged_source_leaves_an_older_manifest_as_it_was(tmp_path):
    source = write_parquet(tmp_path / "a.parquet", ["a", "b"])
    build(tmp_path, source, count=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "b.parquet").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"b.parquet is damaged"):
        build(tmp_path, source, tmp_path / "b.parquet", count=1)
    (tmp_path / "b.parquet").unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_provenance_says_what_the_manifest_was_made_from(tmp_path):
    source = write_parquet(tmp_path / "a.parquet", ["a", "b"])
    _, provenance = build(tmp_path, source, count=2, seed=5)
    assert json.loads((tmp_path / "prompts.json").read_text()) == provenance
    assert provenance["sha256"] == hashlib.sha256((tmp_path / "prompts.jsonl").read_bytes()).hexdigest()
    data = source.read_bytes()
    facts = {"path": str(source), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert provenance["sources"] == [facts]
    assert (provenance["seed"], provenance["count"], provenance["read"]) == (5, 2, 2)


def manifest_source(path, limit=None):
    return {"source": "manifest", "path": str(path), "limit": limit}


def test_a_run_takes_the_first_prompts_of_a_manifest(tmp_path):
    rows, _ = build(tmp_path, write_parquet(tmp_path / "a.parquet", list("abcdef")), count=6)
    path = tmp_path / "prompts.jsonl"
    prompts = load_prompts(manifest_source(path))
    assert prompts == [Prompt(row["id"], row["prompt"]) for row in rows]
    assert load_prompts(manifest_source(path, 2)) == prompts[:2]


def test_identity_covers_the_draw_and_neither_its_length_nor_paths(tmp_path):
    source = write_parquet(tmp_path / "a.parquet", list("abcdef"), width=[1] * 6, height=[1] * 6)
    moved = write_parquet(tmp_path / "moved.parquet", list("abcdef"), width=[1] * 6, height=[1] * 6)
    other = write_parquet(tmp_path / "other.parquet", list("abcdeg"), width=[1] * 6, height=[1] * 6)
    denied = tmp_path / "denied.txt"
    denied.write_text(prompt_id("z"))

    def identity(*sources, count=3, **options):
        build(tmp_path, *sources, count=count, **options)
        return prompts_identity(manifest_source(tmp_path / "prompts.jsonl"))["sha256"]

    same = {identity(source), identity(source, count=5), identity(moved)}
    assert len(same) == 1
    assert identity(source, other) == identity(other, source)
    differ = [
        identity(other),
        identity(source, seed=1),
        identity(source, filters=Filters(min_side=1)),
        identity(source, denylist=denied),
        identity(source, caption_column="text"),
    ]
    assert len({*same, *differ}) == 6


def test_identity_without_provenance_is_that_of_the_file(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": "1", "prompt": "a"}\n')
    assert prompts_identity(manifest_source(path)) == {
        "source": "manifest",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert load_prompts(manifest_source(path)) == [Prompt("1", "a")]


@pytest.mark.parametrize(
    ("text", "limit", "message"),
    [
        (None, None, "no prompt manifest at .*: make one with python -m experiments.prompts build"),
        ("", None, "holds 0 prompts"),
        ('{"id": "1", "prompt": "a"}\n', 2, "holds 1 prompts: set prompts.limit to no more"),
        ('{"id": "1", "prompt": "a"}\n{"id": "2"', None, "line 2 of .* has no id"),
        ('{"id": "1"}\n', None, "line 1 of .* or no prompt"),
        ('{"id": "../1", "prompt": "a"}\n', None, "line 1 of .* has no id"),
        ('{"id": 1, "prompt": "a"}\n', None, "line 1 of .* has no id"),
        ('["id"]\n', None, "line 1 of .* has no id"),
        ('{"id": "1", "prompt": "a"}\n' * 2, None, "line 2 of .* repeats the id 1"),
    ],
)
def test_manifests_that_are_none(tmp_path, text, limit, message):
    path = tmp_path / "mine.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_prompts(manifest_source(path, limit))


def test_provenance_of_another_manifest_is_refused(tmp_path):
    build(tmp_path, write_parquet(tmp_path / "a.parquet", list("abc")), count=3)
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(ValueError, match=r"is not the file that .*prompts.json describes"):
        prompts_identity(manifest_source(path))
    path.with_suffix(".json").write_text("[]")
    with pytest.raises(ValueError, match=r"prompts.json is not the provenance"):
        prompts_identity(manifest_source(path))


def test_the_command_line_reaches_every_option(tmp_path, capsys):
    columns = {"width": [600, 600, 90], "height": [500, 500, 90], "punsafe": [0.1] * 3, "pwatermark": [0.1] * 3}
    source = write_parquet(
        tmp_path / "a.parquet", ["x"] * 3, title=list("abc"), aesthetic=[6.0] * 3, language=["en"] * 3, **columns
    )
    (tmp_path / "denied.txt").write_text(prompt_id("a"))
    options = "--count 1 --seed 4 --min-side 100 --max-aspect 3 --max-punsafe .5 --max-pwatermark .8 --min-aesthetic 5"
    paths = ["--out", str(tmp_path / "out/p.jsonl"), "--denylist", str(tmp_path / "denied.txt")]
    main(["build", str(source), *options.split(), "--language", "en", "de", "--caption-column", "title", *paths])
    assert capsys.readouterr().out == f"{tmp_path / 'out/p.jsonl'}: 1 prompts of 3 rows\n"
    provenance = json.loads((tmp_path / "out/p.json").read_text())
    assert provenance["filters"] == {
        "min_side": 100, "max_aspect": 3, "max_punsafe": 0.5, "max_pwatermark": 0.8, "min_aesthetic": 5,
        "languages": ["de", "en"],
    }  # fmt: skip
    assert (provenance["seed"], provenance["caption_column"]) == (4, "title")
    assert provenance["dropped"] == {"denied id": 1, "min_side": 1}
    assert load_prompts(manifest_source(tmp_path / "out/p.jsonl"))[0].text == "b"


def test_errors_are_one_line_and_exit_code_two(tmp_path):
    command = [sys.executable, "-m", "experiments.prompts", "build", str(tmp_path / "nowhere"), "--count", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing at ")
    assert len(done.stderr.splitlines()) == 1


def test_the_demonstration_prompts_load():
    node = compose_config(["prompts=demo", "metrics=none"]).prompts
    prompts = load_prompts({"source": node.source, "path": ROOT / node.path, "limit": node.limit})
    assert len({prompt.text for prompt in prompts}) == len(prompts) == 24


def test_the_laion_configuration_takes_a_manifest(tmp_path):
    build(tmp_path, write_parquet(tmp_path / "a.parquet", list("abc")), count=3)
    node = compose_config(["prompts=laion", f"prompts.path={tmp_path / 'prompts.jsonl'}", "prompts.limit=2"]).prompts
    assert len(load_prompts(dict(node))) == 2


def test_files_to_measure_with_have_the_captions_they_say(tmp_path):
    write_synthetic_files([str(tmp_path / "measure"), "--rows", "1000"])
    rows, provenance = build(tmp_path, tmp_path / "measure", count=1000, filters=Filters(min_side=256))
    assert {len(prompt) for prompt in prompts_of(rows)} == {64}
    assert provenance["dropped"] == {}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_two_million_rows_need_little_memory(tmp_path):
    """In a process of its own; the captions alone are 128 MB, in one row group."""
    table = synthetic_rows(2_000_000, seed=0)
    pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False, row_group_size=len(table))
    main_then_peak = "import sys; from experiments.prompts.__main__ import main; main(sys.argv[1:]);"
    main_then_peak += "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    arguments = ["build", str(tmp_path / "a.parquet"), "--count", "30000", "--out", str(tmp_path / "p.jsonl")]
    done = subprocess.run(
        [sys.executable, "-c", main_then_peak, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout.split()[-1]) < 400_000  # kB
    assert len(load_prompts(manifest_source(tmp_path / "p.jsonl"))) == 30000
