"""Tar shards: samples, lazy members, damaged files."""

import tarfile
from pathlib import Path

import pytest

from eval.shards import read_member, read_shard
from tests.eval.helpers import write_shard

FILES = {
    "in/0001.jpg": b"first image",
    "in/0001.txt": b"first caption",
    "0002.JPG": b"second image",
    "0001.txt": b"another folder",
    "in/0001.json": b"{}",  # not adjacent to its sample
    "0002.left.png": b"left",
    "0002.left.txt": b"left caption",
}


def test_samples_are_grouped_by_name_up_to_the_first_dot(tmp_path: Path) -> None:
    samples = list(read_shard(write_shard(tmp_path / "a.tar", FILES)))
    suffixes = {sample.key: list(sample.members) for sample in samples}
    assert suffixes == {
        "in/0001": [".jpg", ".txt", ".json"],
        "0002": [".JPG", ".left.png", ".left.txt"],
        "0001": [".txt"],
    }
    assert {sample.key: [image.name for image in sample.images] for sample in samples} == {
        "in/0001": ["in/0001.jpg"],
        "0002": ["0002.JPG", "0002.left.png"],
        "0001": [],
    }


def test_members_are_read_by_offset(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.tar", FILES)
    members = [member for sample in read_shard(path) for member in sample.members.values()]
    assert {member.name: read_member(path, member) for member in members} == FILES
    first, second, _ = read_shard(path)
    texts = [first.beside(first.images[0], ".txt"), *(second.beside(image, ".txt") for image in second.images)]
    assert [text and read_member(path, text) for text in texts] == [b"first caption", None, b"left caption"]


def test_folders_in_a_shard_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "set.x").mkdir()
    (tmp_path / "set.x" / "a.png").write_bytes(b"image")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "set.x", "set.x")
    assert [(sample.key, list(sample.members)) for sample in read_shard(tmp_path / "a.tar")] == [("set.x/a", [".png"])]


def test_damaged_shard_is_named(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.tar", {"a.png": b"x" * 5000})
    (member,) = next(read_shard(path)).members.values()
    path.write_bytes(path.read_bytes()[:2000])
    (tmp_path / "noise.tar").write_bytes(b"x" * 2000)
    with tarfile.open(tmp_path / "zipped.tar", "w:gz") as archive:
        archive.add(path, "a.png")
    for name in ("a.tar", "noise.tar", "zipped.tar"):
        with pytest.raises(ValueError, match=f"cannot read .*{name}"):
            list(read_shard(tmp_path / name))
    with pytest.raises(ValueError, match=r"cannot read a.png in .*a.tar: 1488 of 5000 bytes"):
        read_member(path, member)
    with pytest.raises(FileNotFoundError):
        list(read_shard(tmp_path / "nowhere.tar"))
