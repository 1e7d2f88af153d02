"""Real pictures with captions as img2dataset writes them: NAME.jpg, NAME.txt and NAME.json side by side, in folders
("files") or in tar shards ("webdataset").
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from experiments.prompts.columns import SCHEMA, TEXTS, find_columns

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
AT_ONCE = 256  # pictures


@dataclass(frozen=True)
class Sample:
    """A picture with what lies beside it, None if missing: ``image`` is its file, ``member`` its name within a tar."""

    image: str
    member: str | None
    picture: bytes
    caption: bytes | None
    metadata: bytes | None


class BrokenSample(Exception):
    """A sample to leave out, and why."""


def holds_pictures(folder: Path) -> bool:
    return any(name.lower().endswith(SUFFIXES) for _, _, names in os.walk(folder) for name in names)


def folder_samples(folder: Path) -> Iterator[Sample]:
    for where, _, names in os.walk(folder):
        for name in names:
            image = Path(where, name)
            if image.suffix.lower() in SUFFIXES:
                caption, metadata = (
                    path.read_bytes() if path.is_file() else None
                    for path in (image.with_suffix(".txt"), image.with_suffix(".json"))
                )
                yield Sample(image.as_posix(), None, image.read_bytes(), caption, metadata)


def tar_samples(path: Path) -> Iterator[Sample]:
    """Members of one sample follow each other and share their name up to its first dot, as webdataset has it."""
    with tarfile.open(path, "r:") as tar:
        key, parts = "", dict[str, bytes]()
        for member in tar:
            stream = tar.extractfile(member)
            if stream is None:  # a folder
                continue
            where, name = os.path.split(member.name)
            stem, _, suffix = name.partition(".")
            if os.path.join(where, stem) != key:
                yield from tar_sample(path, key, parts)
                key, parts = os.path.join(where, stem), {}
            parts[f".{suffix}"] = stream.read()
        yield from tar_sample(path, key, parts)


def tar_sample(path: Path, key: str, parts: Mapping[str, bytes]) -> Iterator[Sample]:
    """The sample of these parts, by suffix; none if no picture is among them."""
    for suffix in [suffix for suffix in parts if suffix.lower() in SUFFIXES][:1]:
        yield Sample(path.as_posix(), key + suffix, parts[suffix], parts.get(".txt"), parts.get(".json"))


def find_sample_columns(samples: Iterable[Sample], caption_column: str | None, source: Path) -> dict[str, str]:
    """Columns by the metadata of the first sample that has some; ValueError without a sample or a caption."""
    for sample in samples:
        try:
            cells = sample_cells(sample)
        except BrokenSample:
            continue
        columns = find_columns(pa.schema([(name, pa.null()) for name in cells]), caption_column, source)
        return columns | {"width": "width", "height": "height"}  # of the picture itself, so they are always there
    raise ValueError(f"{source} holds no picture with readable metadata")


def sample_cells(sample: Sample) -> dict[str, Any]:
    """The sample's metadata, its caption file among them."""
    try:
        cells = dict(json.loads(sample.metadata or b"{}"))
        caption = {} if sample.caption is None else {"caption": sample.caption.decode("utf-8")}
    except (ValueError, TypeError) as error:  # not JSON, no object, not UTF-8
        raise BrokenSample("broken row") from error
    return cells | caption


def sample_batches(
    samples: Iterable[Sample], columns: Mapping[str, str]
) -> Iterator[tuple[pa.RecordBatch, Counter[str]]]:
    """Rows under `SCHEMA`, and how many samples gave none, by reason."""
    rows: list[dict[str, Any]] = []
    broken: Counter[str] = Counter()
    for sample in samples:
        try:
            rows.append(sample_row(sample, columns))
        except BrokenSample as error:
            broken[str(error)] += 1
        if len(rows) == AT_ONCE:
            yield pa.RecordBatch.from_pylist(rows, SCHEMA), broken
            rows, broken = [], Counter()
    yield pa.RecordBatch.from_pylist(rows, SCHEMA), broken


def sample_row(sample: Sample, columns: Mapping[str, str]) -> dict[str, Any]:
    cells = sample_cells(sample)
    height, width = picture_size(sample.picture)
    values = {ours: cells.get(theirs) for ours, theirs in columns.items()}
    row = {ours: text(value) if ours in TEXTS else number(value) for ours, value in values.items()}
    return row | {"height": height, "width": width, "image": sample.image, "member": sample.member}


def picture_size(data: bytes) -> tuple[int, int]:
    """(height, width) of a picture that decodes to its end."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            image.draft("RGB", (1, 1))  # of a JPEG all data are read, but only an eighth of each side is computed
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenSample("picture does not decode") from error
    return height, width


def text(value: Any) -> str | None:
    """What is no text is unknown; half a surrogate pair, which JSON can spell, breaks the row."""
    if not isinstance(value, str):
        return None
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BrokenSample("broken row") from error
    return value


def number(value: Any) -> float | None:
    """What is no number is unknown."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
