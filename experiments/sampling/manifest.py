"""The record of a run's images, and how they reach the disk: a crash loses at most the batch in flight.

An image is written to a temporary name, synced and renamed; only then is its line appended to the manifest. An image
without a valid line is generated again, and set aside, not deleted. Lines hold nothing that differs between two runs
with the same identity and batch size. While processes generate shards of a run in parallel, each appends to a
manifest of its own; together they are one, and in the end they become one file.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.files import sha256_of_file, sync_folder, write_atomically
from eval.images import ImageFile
from eval.index import ImageInfo, confirm, remember
from experiments.prompts.checks import ID, is_text
from experiments.setup.identity import environment

NAME, QUARANTINE = "manifest.jsonl", "quarantine"
FEATURES = "features"  # the folder of a run's features, with the index of its images
CRC = "crc"  # of a line: CRC-32 of its other values; older lines have none

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """One finished image. ``batch`` is how many images were sampled together, which changes each by rounding; older
    manifests do not say.
    """

    id: str
    prompt: str
    seed: int
    file: str
    sha256: str
    height: int
    width: int
    batch: int | None = None

    def line(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {key: value for key, value in asdict(self).items() if value is not None}


TYPES = {field.name: (str if "str" in str(field.type) else int) for field in fields(Record)}
REQUIRED = TYPES.keys() - {"batch"}


def parse_record(values: Mapping[str, Any]) -> Record:
    """A line of a manifest; ValueError that says what is wrong with it."""
    if lacking := sorted(REQUIRED - values.keys()):
        raise ValueError(f"no record of an image: it has no {', '.join(lacking)}")
    wrong = [key for key, value in values.items() if type(value) is not TYPES.get(key)]
    if not wrong:
        wrong = ["id"] * (not ID.fullmatch(values["id"])) + ["prompt"] * (not is_text(values["prompt"]))
    if wrong:
        raise ValueError(f"no record of an image: its {', '.join(wrong)} cannot be")
    if values["file"] != f"images/{values['id']}.png":
        raise ValueError(f"it names {values['file']}, which is not images/{values['id']}.png")
    return Record(**values)


def manifests(folder: Path) -> list[Path]:
    """The manifest of a run, and those of shards that are or were being generated."""
    return sorted(folder.glob("manifest*.jsonl"))


def read_records(folder: Path, *, trust: bool = True) -> list[Record]:
    """Valid records in order of id: those with a whole line and an image with the recorded hash.

    An image is hashed once, and again when its stamp has changed (`eval.index`); with ``trust=False`` in any case.
    """
    records = list({(str(r.id), str(r.file), str(r.sha256)): r for r in manifest_lines(folder)}.values())
    valid = confirm(*indexed(folder, records), folder / FEATURES, trust=trust) if records else []
    found = {record.id: record for record, good in zip(records, valid, strict=True) if good}
    return [found[key] for key in sorted(found)]


def whole_records(folder: Path) -> list[Record]:
    """As `read_records`, for checks: every image is hashed, and nothing is remembered."""
    found: dict[str, Record] = {}
    for record in manifest_lines(folder):
        image = folder / record.file
        if image.is_file() and sha256_of_file(image) == record.sha256:
            found[record.id] = record
    return [found[key] for key in sorted(found)]


def images_digest(records: Iterable[Record], ids: Iterable[str]) -> str:
    """Hex SHA-256 over the images of these ids, whatever their order."""
    wanted = set(ids)
    lines = sorted(f"{record.id} {record.sha256}\n" for record in records if record.id in wanted)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def prompts_digest(prompts: Iterable[tuple[str, str]]) -> str:
    """Hex SHA-256 over the ids and texts of prompts in their order."""
    return hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest()


def indexed(folder: Path, records: Sequence[Record]) -> tuple[list[ImageFile], list[ImageInfo]]:
    """The images of records, and what the records say about them."""
    images = [ImageFile(folder / record.file, record.id) for record in records]
    return images, [ImageInfo(record.sha256, record.height, record.width) for record in records]


def remember_images(folder: Path, records: Sequence[Record]) -> None:
    """Spare `read_records` the hashing of images that were saved just now."""
    if records:
        remember(*indexed(folder, records), folder / FEATURES)


def finished_ids(folder: Path) -> set[str]:
    """Ids that have a whole line; their images are not read."""
    return {record.id for record in manifest_lines(folder)}


def manifest_lines(folder: Path) -> Iterator[Record]:
    """Every whole line of the manifests."""
    for path in manifests(folder):
        for line in read_lines(path):
            try:
                yield parse_record(line)
            except ValueError:
                continue


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of `append_line`; lines that are damaged, or torn by a crash, are skipped."""
    yield from (values for _, values in numbered_lines(path) if values is not None)


def numbered_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The number of each line that is not empty, from 1, and its object, None if it is damaged."""
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            whole = isinstance(values, dict) and values.pop(CRC, None) in (None, checksum(values))
        except (ValueError, RecursionError):
            whole = False
        yield number, values if whole else None


def checksum(values: Mapping[str, object]) -> str:
    """CRC-32 of a line's values, eight hexadecimal digits."""
    return f"{zlib.crc32(json.dumps(values).encode()):08x}"


def json_line(values: Mapping[str, object]) -> str:
    """A line with its `checksum`, so that a changed digit is noticed as a torn line is."""
    plain = {key: value for key, value in values.items() if key != CRC}
    return json.dumps({**plain, CRC: checksum(plain)}) + "\n"


def first_environment(folder: Path) -> Mapping[str, str]:
    """That of the first batch whose line of costs has it; this process's if there is none."""
    for path in sorted(folder.glob("costs*.jsonl")):
        for line in read_lines(path):
            if environment().keys() <= line.keys():
                return {key: line[key] for key in environment()}
    return environment()


def merge_manifests(folder: Path, records: list[Record]) -> None:
    """Make one manifest, sorted by id; remove temporary files, and set aside images that no record names."""
    lines = "".join(json_line(record.line()) for record in sorted(records, key=lambda r: r.id))
    named = {record.file for record in records}
    for path in [*folder.glob("*.tmp"), *folder.glob("images/*.tmp")]:
        path.unlink()
    for path in folder.glob("images/*"):
        if path.relative_to(folder).as_posix() not in named:
            set_aside(path, folder)
    for path in folder.glob(f"{QUARANTINE}/*"):
        again = folder / "images" / path.name
        if again.is_file() and path.is_file() and again.read_bytes() == path.read_bytes():
            path.unlink()  # generated again, with the same bytes
    write_atomically(folder / NAME, lines.encode())
    for path in manifests(folder):
        if path.name != NAME:
            path.unlink()


def set_aside(file: Path, folder: Path) -> None:
    """Move a file that does not fit its run out of the way, into the run folder's quarantine: if its manifest was
    damaged, an image may be worth hours.
    """
    place = unused(folder / QUARANTINE / file.name)
    place.parent.mkdir(exist_ok=True)
    file.rename(place)
    log.warning("%s has no valid record and is now at %s", file, place)


def unused(path: Path) -> Path:
    """This path or, if there is something, the same with a number."""
    found, count = path, 1
    while found.exists():
        found, count = path.with_name(f"{path.stem}-{count}{path.suffix}"), count + 1
    return found


def save_image(
    folder: Path,
    image: NDArray[np.uint8],
    *,
    prompt_id: str,
    prompt: str,
    seed: int,
    batch: int | None = None,
    manifest: str = NAME,
) -> Record:
    """Save (H, W, 3) uint8 as PNG and append its record to the manifest of that name."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    file = f"images/{prompt_id}.png"
    write_atomically(folder / file, buffer.getvalue())
    height, width = image.shape[:2]
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    record = Record(prompt_id, prompt, seed, file, digest, height, width, batch)
    append_line(folder / manifest, record.line())
    return record


def append_line(path: Path, values: Mapping[str, object]) -> None:
    """Append one JSON line, synced; a line that a crash has torn before it is ended first."""
    new = not path.exists()
    with path.open("ab+") as stream:
        if stream.tell() and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n":
            stream.write(b"\n")
        stream.write(json_line(values).encode())
        stream.flush()
        os.fsync(stream.fileno())
    if new:
        sync_folder(path.parent)
