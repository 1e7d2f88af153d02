"""Downloads from a server on this machine that breaks off, cannot continue, or answers with something else."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.download import RemoteFile
from tests.web import Web, serving

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def web() -> Iterator[Web]:
    with serving(Web({"/file.bin": CONTENT})) as made:
        yield made


@pytest.fixture
def remote(web: Web, tmp_path: Path) -> RemoteFile:
    return RemoteFile(f"{web.url}/file.bin", tmp_path / "deep/file.bin", SHA256[:8])


def ranges(web: Web) -> list[str | None]:
    return [sought for method, _, sought in web.requests if method == "GET"]


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_fetched_once(web: Web, remote: RemoteFile) -> None:
    assert not remote.is_here()
    assert remote.size() == len(CONTENT)
    assert remote.fetch() == remote.path
    assert remote.path.read_bytes() == CONTENT
    assert visible(remote.path.parent) == ["file.bin"]
    assert remote.is_here()
    remote.fetch()
    assert ranges(web) == [None]


def test_a_broken_connection_is_continued(web: Web, remote: RemoteFile) -> None:
    web.breaks = [1000, 0 + 500]
    assert remote.fetch().read_bytes() == CONTENT
    assert ranges(web) == [None, "bytes=1000-", "bytes=1500-"]


def test_an_interrupted_download_is_continued_by_the_next(web: Web, remote: RemoteFile) -> None:
    web.breaks = [3000, 0]
    with pytest.raises(FileNotFoundError, match=r"file.bin cannot be fetched .*3000 of 10240 bytes.*run this again"):
        remote.fetch()
    assert not remote.is_here()
    web.requests.clear()
    assert remote.fetch().read_bytes() == CONTENT
    assert ranges(web) == ["bytes=3000-"]


def test_a_server_that_cannot_continue_starts_again(web: Web, remote: RemoteFile) -> None:
    web.breaks, web.ranges = [3000, 0], False
    with pytest.raises(FileNotFoundError):
        remote.fetch()
    assert remote.fetch().read_bytes() == CONTENT


def test_a_complete_part_is_only_moved_and_a_longer_one_replaced(web: Web, remote: RemoteFile) -> None:
    remote.path.parent.mkdir()
    part = remote.path.with_name(".file.bin.part")
    part.write_bytes(CONTENT)
    assert remote.fetch().read_bytes() == CONTENT
    assert ranges(web) == [f"bytes={len(CONTENT)}-"]
    remote.path.unlink()
    part.write_bytes(CONTENT + b"more")
    assert remote.fetch().read_bytes() == CONTENT


def test_wrong_contents_are_refused_and_removed(web: Web, remote: RemoteFile) -> None:
    web.files["/file.bin"] = b"<html>Please log in</html>"
    with pytest.raises(ValueError, match=rf"gave a file whose SHA-256 is .*, not {SHA256[:8]}") as caught:
        remote.fetch()
    assert "\n" not in str(caught.value)
    assert visible(remote.path.parent) == []
    web.files["/file.bin"] = CONTENT
    assert remote.fetch().read_bytes() == CONTENT


def test_a_damaged_file_is_replaced(web: Web, remote: RemoteFile) -> None:
    remote.path.parent.mkdir()
    remote.path.write_bytes(CONTENT[:100])
    assert remote.fetch().read_bytes() == CONTENT


def test_no_server_and_no_file_say_what_to_do(web: Web, tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:9/file.bin", f"{web.url}/other.bin"):
        remote = RemoteFile(url, tmp_path / "file.bin", SHA256)
        with pytest.raises(FileNotFoundError, match=f"download {url} on a machine with network access") as caught:
            remote.fetch()
        assert "\n" not in str(caught.value)
        with pytest.raises(OSError, match=r"refused|404"):
            remote.size()
