"""Manifests, whatever they hold: only lines as they were written count, and nothing outside a run is read or moved."""

import json
import zlib
from random import Random

import numpy as np
import pytest

from eval.image_sets import captions, find_images
from experiments.sampling.checking import check_images, repair_images
from experiments.sampling.manifest import (
    NAME,
    append_line,
    json_line,
    merge_manifests,
    read_lines,
    read_records,
    save_image,
)
from experiments.scoring.runs import costs_per_image
from tests.hostile.inputs import BOTH, PIECES, damaged, error_of, text, writes_only

COST = {"images": 1, "seconds": 2.0, "unet_evaluations": 3.5, "batch": 2, "dtype": "float32"}


@pytest.fixture
def folder(tmp_path):
    """A run folder with four images, beside an image that is not of it."""
    run = tmp_path / "runs/run"
    for number in range(4):
        pixels = np.full((4, 6, 3), number, np.uint8)
        save_image(run, pixels, prompt_id=f"{number:06}", prompt="a \u00e9 b", seed=number, batch=2)
        append_line(run / "costs.jsonl", COST)
    (tmp_path / "runs/000009.png").write_bytes((run / "images/000000.png").read_bytes())
    return run


def first_line(folder):
    return json.loads((folder / NAME).read_text().splitlines()[0])


VALUES = ["a", "000003", "../x", 10**300, -1, 1.5, None, [], {}, True, "\ud800", "x" * 300]


@pytest.mark.parametrize("key", ["id", "prompt", "seed", "file", "sha256", "height", "width", "batch", "new", "crc"])
def test_lines_with_other_values_do_not_count(folder, key):
    """Neither as they would be written, unless all values can be, nor with the checksum of the old ones."""
    before, line, whole = read_records(folder), first_line(folder), (folder / NAME).read_bytes()
    for value in VALUES:
        with (folder / NAME).open("a") as stream:
            stream.write(json.dumps(line | {key: value}) + "\n")
        assert read_records(folder) == before, value
        append_line(folder / NAME, line | {key: value})
        for record in read_records(folder):
            assert record.file == f"images/{record.id}.png"
            record.prompt.encode("utf-8")
        (folder / NAME).write_bytes(whole)


NAMES = ["images/..", "images/.", "images/\0", "images/" + "a" * 300, "images/x\n.png", "images/000001.png", ".", ""]
NAMES += ["../000009.png", "images/../../000009.png", "/etc/passwd", "images\\..\\x", "C:\\x", *PIECES[:40]]


def test_a_line_names_the_image_of_its_own_id(folder):
    before, line, whole = read_records(folder), first_line(folder), (folder / NAME).read_bytes()
    for start in range(0, len(NAMES), 8):
        names = NAMES[start : start + 8]
        for file in names:
            for id_ in ("000009", file, "../000009", ".."):
                append_line(folder / NAME, line | {"id": id_, "file": file})
        with writes_only(folder):
            assert read_records(folder) == before, names
            check_images(folder)
            repair_images(folder)
            assert read_records(folder) == before, names
            merge_manifests(folder, before)
        assert (folder.parent / "000009.png").is_file()
        (folder / NAME).write_bytes(whole)


@pytest.mark.parametrize(
    "line", [b"[" * 100_000, b'{"a":' * 50_000, b"\xff", b"NaN", b"1" * 5000, b"\0", b"{}", b"[]"]
)
def test_nonsense_does_not_count(folder, line):
    before = read_records(folder)
    for name in (NAME, "costs.jsonl"):
        with (folder / name).open("ab") as stream:
            stream.write(line + b"\n")
    assert read_records(folder) == before
    assert costs_per_image(folder) == {"seconds_per_image": 2.0, "unet_evaluations_per_image": 3.5}
    assert len(captions(folder, find_images(folder))) == 4


def test_older_lines_without_a_checksum_count(folder):
    before, lines = read_records(folder), [json.loads(line) for line in (folder / NAME).read_text().splitlines()]
    (folder / NAME).write_text("".join(json.dumps({k: line[k] for k in line if k != "crc"}) + "\n" for line in lines))
    assert read_records(folder) == before


def test_a_line_is_what_was_written(folder):
    assert list(read_lines(folder / "costs.jsonl")) == [COST] * 4
    assert json.loads(json_line({"a": 1})) == {"a": 1, "crc": format(zlib.crc32(b'{"a": 1}'), "08x")}


def test_every_flipped_bit_is_noticed(folder):
    """What remains of a manifest and of costs is what was written."""
    records = [record.line() for record in read_records(folder)]
    for name, written in ((NAME, records), ("costs.jsonl", [COST])):
        whole = (folder / name).read_bytes()
        for bit in range(0, 8 * len(whole), 11):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            (folder / name).write_bytes(changed)
            for line in read_lines(folder / name):  # with a flip in "crc" itself, there is one more value
                assert line in written or len(line) > len(written[0])
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize("count", BOTH)
def test_random_manifests(folder, count):
    random, before = Random(9), set(read_records(folder))
    whole, costs = (folder / NAME).read_bytes(), (folder / "costs.jsonl").read_bytes()
    for _ in range(count):
        (folder / NAME).write_bytes(damaged(random, whole))
        (folder / "costs.jsonl").write_bytes(damaged(random, costs))
        with writes_only(folder):
            assert set(read_records(folder)) <= before
            costs_per_image(folder)
            check_images(folder)
            error_of(lambda: captions(folder, find_images(folder)))


@pytest.mark.parametrize("count", BOTH)
def test_random_values(folder, count):
    random = Random(10)
    for _ in range(count):
        line = first_line(folder)
        for _ in range(random.randint(1, 3)):
            line[random.choice([*line, text(random)])] = random.choice((text(random), random.randrange(-9, 9), None))
        append_line(folder / NAME, line)
        append_line(folder / "costs.jsonl", {random.choice([*COST, "x"]): random.choice((text(random), -1, 1e999))})
    with writes_only(folder):
        assert len(read_records(folder)) >= 3
        check_images(folder)
        costs_per_image(folder)
        repair_images(folder)
    assert {path.name for path in folder.parent.iterdir()} == {"run", "000009.png"}
