"""Atomic writes: failing and concurrent writers."""

import os
import re
import resource
import stat
import threading
from pathlib import Path

import pytest

from eval.files import open_atomically, write_atomically

ROOT = Path(__file__).resolve().parents[2]
IN_PLACE = re.compile(r"""\.write_text\(|\.write_bytes\(|\bopen\((.*, *)?["'][wx]b?["']|savefig\((?!file|stream)""")


def test_failing_writer_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_atomically(path, "old ü")

    def fail() -> None:
        with open_atomically(path) as file:
            file.write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_bytes() == "old ü".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


def test_reader_sees_nothing_until_the_writer_has_finished(tmp_path: Path) -> None:
    with open_atomically(tmp_path / "a") as file:
        file.write(b"new")
        (temporary,) = tmp_path.iterdir()
        assert temporary.suffix == ".tmp"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_concurrent_writers_leave_one_complete_file(tmp_path: Path) -> None:
    path, both_open = tmp_path / "a", threading.Barrier(2, timeout=10)

    def write(letter: bytes) -> None:
        with open_atomically(path) as file:
            file.write(letter * 1000)
            both_open.wait()
            file.write(letter * 1000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert path.read_bytes() in (b"a" * 2000, b"b" * 2000)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_temporary_file_that_is_cleaned_up_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush, removed = os.fsync, []

    def clean_up(descriptor: int) -> None:
        flush(descriptor)
        if not removed:
            removed.extend(tmp_path.glob("*.tmp"))
            removed[0].unlink()

    monkeypatch.setattr(os, "fsync", clean_up)
    write_atomically(tmp_path / "a.json", "new")
    assert removed
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    """The limit on a file's size stands for the disk: a write fails half way."""
    write_atomically(tmp_path / "a", b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_atomically(tmp_path / "a", bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_every_folder_that_gets_an_entry_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a power failure could take back the rename, or a new folder with all that is in it."""
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")) or fsync(descriptor)
    )
    write_atomically(tmp_path / "one" / "two" / "a", b"new")
    assert {str(tmp_path), str(tmp_path / "one"), str(tmp_path / "one" / "two")} <= set(synced)
    assert synced[-1] == str(tmp_path / "one" / "two")  # after the rename


def test_files_are_written_atomically_everywhere() -> None:
    """No module writes to a file's final place, where a crash leaves half of it; apart from the training of scenes."""
    found = []
    for path in sorted(each for name in ("eval", "baselines", "experiments") for each in ROOT.glob(f"{name}/**/*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        if "scenes" not in path.parts and path.name != "files.py":
            found += [f"{path.relative_to(ROOT)}: {line.strip()}" for line in lines if IN_PLACE.search(line)]
    assert found == []


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_bytes(b"")
    write_atomically(tmp_path / "atomic", b"")
    ordinary, atomic = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "atomic"))
    assert atomic == ordinary
