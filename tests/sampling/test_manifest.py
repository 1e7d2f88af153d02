"""Records of images after a crash, a bit error or an attack: nothing is lost, and nothing outside is read."""

import hashlib
import json
import os

import numpy as np
import pytest

from eval.images import ImageFile
from eval.index import look_up
from experiments.sampling.manifest import (
    NAME,
    append_line,
    merge_manifests,
    read_lines,
    read_records,
    remember_images,
    save_image,
)
from experiments.scoring.runs import costs_per_image


def image(value):
    return np.full((4, 6, 3), value, np.uint8)


def save(folder, number):
    return save_image(folder, image(number), prompt_id=f"{number:06}", prompt="a b", seed=number)


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        save(tmp_path, number)
    return tmp_path


def test_a_damaged_manifest_costs_no_image(folder):
    """Images without a valid line are set aside: with the manifest mended by hand they count again."""
    good = (folder / NAME).read_text()
    (folder / NAME).write_text(good.replace('"prompt"', '"promt"', 2))
    records = read_records(folder)
    assert [record.id for record in records] == ["000002"]
    before = {path.name: path.read_bytes() for path in folder.glob("images/*")}
    merge_manifests(folder, records)
    assert [path.name for path in folder.glob("images/*")] == ["000002.png"]
    aside = {path.name: path.read_bytes() for path in folder.glob("quarantine/*")}
    assert aside == {name: before[name] for name in ("000000.png", "000001.png")}


@pytest.fixture
def read(monkeypatch):
    """Names of the images that are read from now on."""
    names, original = [], ImageFile.read
    monkeypatch.setattr(ImageFile, "read", lambda image: names.append(image.name) or original(image))
    return names


def test_unchanged_images_are_read_once(folder, read):
    first = read_records(folder)
    assert sorted(read) == ["000000", "000001", "000002"]
    assert read_records(folder) == first
    assert len(read) == 3
    (folder / "images/000001.png").unlink()
    save(folder, 1)
    assert read_records(folder) == first
    assert read[3:] == ["000001"]


def test_images_that_were_just_saved_are_not_read(folder, read):
    remember_images(folder, [save(folder, number) for number in (1, 5)])
    assert [record.id for record in read_records(folder)] == ["000000", "000001", "000002", "000005"]
    assert sorted(read) == ["000000", "000002"]


def test_a_changed_image_is_noticed_whatever_it_claims(folder, read):
    """Of the same length and modification time."""
    records, path = read_records(folder), folder / "images/000001.png"
    old, content = path.stat(), bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    for _ in range(2):
        assert read_records(folder) == [records[0], records[2]]


def test_a_full_check_reads_every_image_again(folder, read, monkeypatch):
    """As after an error of the disk, which changes no time of the file."""
    records, path = read_records(folder), folder / "images/000001.png"
    stamps = {image: ImageFile(folder / f"images/{image}.png", image).stamp() for image in read}
    monkeypatch.setattr(ImageFile, "stamp", lambda image: stamps[image.name])
    path.write_bytes(b"decayed")
    assert read_records(folder) == records
    for trust in (False, True):  # what was found is remembered
        assert read_records(folder, trust=trust) == [records[0], records[2]]


def test_what_was_checked_is_known_to_scoring(folder, read):
    records = read_records(folder)
    images = [ImageFile(folder / record.file, record.id) for record in records]
    read.clear()
    found = look_up(images, folder / "features")
    assert not read
    assert [info.digest for info in found] == [hashlib.sha256(image.path.read_bytes()).hexdigest() for image in images]
    assert {(info.height, info.width) for info in found} == {(4, 6)}


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_read(folder):
    folder.chmod(0o555)
    try:
        assert len(read_records(folder)) == 3
    finally:
        folder.chmod(0o755)


def test_what_was_set_aside_goes_once_it_has_been_generated_again(folder):
    (folder / "images/000007.png").write_bytes(b"unlike what is generated later")
    (folder / NAME).write_text("")
    merge_manifests(folder, [])
    assert len(list(folder.glob("quarantine/*"))) == 4
    merge_manifests(folder, [save(folder, number) for number in (0, 1, 2, 7)])
    assert [path.name for path in folder.glob("quarantine/*")] == ["000007.png"]
    assert (folder / "quarantine/000007.png").read_bytes() == b"unlike what is generated later"


def test_setting_aside_twice_overwrites_nothing(folder):
    for content in (b"one", b"two"):
        (folder / "images/000009.png").write_bytes(content)
        merge_manifests(folder, read_records(folder))
    assert sorted(path.read_bytes() for path in folder.glob("quarantine/*")) == [b"one", b"two"]


def test_temporary_files_go(folder):
    for name in (".config.yaml.1f.tmp", "images/.000004.png.2e.tmp"):
        (folder / name).write_bytes(b"half of it")
    merge_manifests(folder, read_records(folder))
    assert not list(folder.rglob("*.tmp"))


def test_a_record_after_a_torn_line_is_kept(folder):
    with (folder / NAME).open("a") as stream:
        stream.write('{"id": "000003", "pro')
    save(folder, 4)
    assert [record.id for record in read_records(folder)] == ["000000", "000001", "000002", "000004"]


def test_the_folder_of_a_new_manifest_is_synced(tmp_path, monkeypatch):
    """A power failure after the first line must not take the file itself."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    for _ in range(2):
        append_line(tmp_path / NAME, {"a": 1})
    assert synced == [str(tmp_path / NAME), str(tmp_path), str(tmp_path / NAME)]


def test_torn_lines_of_costs_are_skipped(tmp_path):
    cost = {"images": 2, "seconds": 3.0, "unet_evaluations": 8}
    append_line(tmp_path / "costs.jsonl", cost)
    with (tmp_path / "costs.jsonl").open("a") as stream:
        stream.write('{"images": 2, "sec')
    append_line(tmp_path / "costs.jsonl", cost)
    assert costs_per_image(tmp_path) == {"seconds_per_image": 1.5, "unet_evaluations_per_image": 4.0}


def test_lines_that_are_no_objects_are_skipped(tmp_path):
    (tmp_path / "lines.jsonl").write_bytes(b'[1]\n{"a": 1}\n\xff\xfe\n3\n\n{"b"')
    assert list(read_lines(tmp_path / "lines.jsonl")) == [{"a": 1}]


@pytest.mark.parametrize(
    "file", ["../outside.png", "images/../../outside.png", "/etc/passwd", "images/", "scores/x.json"]
)
def test_a_record_names_an_image_of_its_own_folder(folder, file):
    outside = folder.parent / "outside.png"
    outside.write_bytes((folder / "images/000000.png").read_bytes())
    line = json.loads((folder / NAME).read_text().splitlines()[0])
    append_line(folder / NAME, line | {"id": "000009", "file": file})
    assert "000009" not in {record.id for record in read_records(folder)}
