"""Atomic writes: failing and concurrent writers."""

import stat
import threading
from pathlib import Path

import pytest

from eval.files import open_atomically, write_atomically


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


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_bytes(b"")
    write_atomically(tmp_path / "atomic", b"")
    ordinary, atomic = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "atomic"))
    assert atomic == ordinary
