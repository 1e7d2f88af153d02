"""Captioned images as written by img2dataset: NAME.jpg, NAME.txt and NAME.json side by side, in folders ("files") or
in tar shards ("webdataset").
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from eval.shards import IMAGE_SUFFIXES, ShardSample, read_member, read_shard
from experiments.prompts.checks import is_text
from experiments.prompts.columns import SCHEMA, TEXTS, find_columns

BATCH_IMAGES = 256


@dataclass(frozen=True)
class Sample:
    """An image with the files beside it, None if missing. ``member`` is its name in ``image`` if that is a tar."""

    image: str
    member: str | None
    content: bytes
    caption: bytes | None
    metadata: bytes | None


class BrokenSample(Exception):
    """A sample to drop; the message is the reason."""


def contains_images(folder: Path) -> bool:
    return any(name.lower().endswith(IMAGE_SUFFIXES) for _, _, names in os.walk(folder) for name in names)


def folder_samples(folder: Path) -> Iterator[Sample]:
    for where, _, names in os.walk(folder):
        for name in names:
            image = Path(where, name)
            if image.suffix.lower() in IMAGE_SUFFIXES:
                caption, metadata = (
                    path.read_bytes() if path.is_file() else None
                    for path in (image.with_suffix(".txt"), image.with_suffix(".json"))
                )
                yield Sample(image.as_posix(), None, image.read_bytes(), caption, metadata)


def shard_samples(path: Path) -> Iterator[Sample]:
    """The samples of a tar shard; those without an image are skipped."""
    for sample in read_shard(path):
        image = next((sample.members[suffix] for suffix in sample.members if suffix.lower() in IMAGE_SUFFIXES), None)
        if image:
            caption, metadata = (read_text_member(path, sample, suffix) for suffix in (".txt", ".json"))
            yield Sample(path.as_posix(), image.name, read_member(path, image), caption, metadata)


def read_text_member(path: Path, sample: ShardSample, suffix: str) -> bytes | None:
    member = sample.members.get(suffix)
    return read_member(path, member) if member else None


def find_sample_columns(samples: Iterable[Sample], caption_column: str | None, source: Path) -> dict[str, str]:
    """Find the columns in the metadata of the first readable sample; ValueError if there is none, or no caption."""
    for sample in samples:
        try:
            fields = sample_fields(sample)
        except BrokenSample:
            continue
        columns = find_columns(pa.schema([(name, pa.null()) for name in fields]), caption_column, source)
        return columns | {"width": "width", "height": "height"}  # always known, from the images themselves
    raise ValueError(f"{source} contains no image with readable metadata")


def sample_fields(sample: Sample) -> dict[str, Any]:
    """The metadata of a sample, with its caption file as ``caption``."""
    try:
        fields = dict(json.loads(sample.metadata or b"{}"))
        caption = {} if sample.caption is None else {"caption": sample.caption.decode("utf-8")}
    except (ValueError, TypeError) as error:  # not JSON, not an object, not UTF-8
        raise BrokenSample("broken row") from error
    return fields | caption


def sample_batches(
    samples: Iterable[Sample], columns: Mapping[str, str]
) -> Iterator[tuple[pa.RecordBatch, Counter[str]]]:
    """Yield batches of rows under `SCHEMA`, with the number of broken samples by reason."""
    rows: list[dict[str, Any]] = []
    broken: Counter[str] = Counter()
    for sample in samples:
        try:
            rows.append(sample_row(sample, columns))
        except BrokenSample as error:
            broken[str(error)] += 1
        if len(rows) == BATCH_IMAGES:
            yield pa.RecordBatch.from_pylist(rows, SCHEMA), broken
            rows, broken = [], Counter()
    yield pa.RecordBatch.from_pylist(rows, SCHEMA), broken


def sample_row(sample: Sample, columns: Mapping[str, str]) -> dict[str, Any]:
    fields = sample_fields(sample)
    height, width = image_size(sample.content)
    values = {ours: fields.get(theirs) for ours, theirs in columns.items()}
    row = {ours: as_text(value) if ours in TEXTS else as_number(value) for ours, value in values.items()}
    return row | {"height": height, "width": width, "image": sample.image, "member": sample.member}


def image_size(content: bytes) -> tuple[int, int]:
    """(height, width) of an image, after checking that it decodes completely."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            image.draft("RGB", (1, 1))  # a JPEG is read completely but decoded at an eighth of each side
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenSample("image does not decode") from error
    return height, width


def as_text(value: Any) -> str | None:
    """Text, or None for other values; BrokenSample for text that UTF-8 cannot hold."""
    if isinstance(value, str) and not is_text(value):
        raise BrokenSample("broken row")
    return value if isinstance(value, str) else None


def as_number(value: Any) -> float | None:
    """A number, also if spelled as text, or None for other values."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
