"""Downloading one file: continued where it stopped, checked by its hash, and in its place only when it is complete."""

from __future__ import annotations

from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock
from tqdm import tqdm

from eval.files import sha256_of_file, sync_folder

BLOCK = 1 << 20
PATIENCE = 60  # seconds without a byte
BEYOND_THE_END = 416


@dataclass(frozen=True)
class RemoteFile:
    """The file at ``url``, whose place is ``path`` and whose SHA-256 begins with the hexadecimal digits ``sha256``."""

    url: str
    path: Path
    sha256: str

    @property
    def name(self) -> str:
        return self.path.name

    def is_here(self) -> bool:
        return self.path.is_file()

    def size(self) -> int:
        """Bytes, as the server says; OSError if it cannot be asked."""
        with open_url(Request(self.url, method="HEAD")) as answer:
            return int(answer.headers["Content-Length"] or 0)

    def fetch(self) -> Path:
        """The path, after downloading what is missing of the file. A file that is there with another hash is replaced.

        Raises:
            FileNotFoundError: the server cannot be reached or breaks off; what has arrived is kept, to continue from.
            ValueError: what arrived has another hash; it is removed.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.name}.part")
        with FileLock(self.path.with_name(f".{self.name}.lock")):
            if self.is_here() and sha256_of_file(self.path).startswith(self.sha256):
                return self.path
            try:
                self.complete(part)
            except (OSError, HTTPException) as error:
                raise FileNotFoundError(
                    f"{self.name} cannot be fetched ({error}): run this again to continue, or download {self.url} on "
                    f"a machine with network access and copy it to {self.path}"
                ) from error
            found = sha256_of_file(part)
            if not found.startswith(self.sha256):
                part.unlink()
                raise ValueError(
                    f"{self.url} gave a file whose SHA-256 is {found[:16]}…, not {self.sha256[:16]}…: run this again; "
                    "if that does not help, something between here and the server answers in its place"
                )
            part.replace(self.path)
        sync_folder(self.path.parent)
        return self.path

    def complete(self, part: Path) -> None:
        """Download into ``part`` until nothing is missing, as long as each connection brings something; OSError if one
        does not.
        """
        while True:
            before = bytes_of(part)
            try:
                total = self.append(part)
            except (OSError, HTTPException):
                if bytes_of(part) <= before:
                    raise
                continue
            if bytes_of(part) >= total:
                return
            if bytes_of(part) <= before:
                raise OSError(f"the connection ended after {bytes_of(part)} of {total} bytes")

    def append(self, part: Path) -> int:
        """One connection: add to ``part`` what it lacks, or all if the server cannot continue; returns all bytes."""
        start = bytes_of(part)
        request = Request(self.url, headers={"Range": f"bytes={start}-"} if start else {})
        try:
            answer = open_url(request)
        except HTTPError as error:
            if error.code != BEYOND_THE_END or not start:
                raise
            if error.headers.get("Content-Range", "").endswith(f"/{start}"):
                return start  # complete, but interrupted before it was moved
            part.unlink()
            return self.append(part)
        with answer:
            continued = start and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            start = start if continued else 0
            total = start + int(answer.headers["Content-Length"] or 0)
            options: dict[str, Any] = {"unit": "B", "unit_scale": True, "leave": False, "disable": None}
            with (
                part.open("ab" if start else "wb") as file,
                tqdm(None, self.name, total, initial=start, **options) as bar,
            ):
                while block := answer.read(BLOCK):
                    file.write(block)
                    bar.update(len(block))
        return total


def open_url(request: Request) -> Any:
    request.add_header("User-Agent", "scalecrafter")
    return urlopen(request, timeout=PATIENCE)


def bytes_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
