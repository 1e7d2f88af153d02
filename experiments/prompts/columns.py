"""Common column names and types for the metadata of all releases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

NAMES = {  # our name: names in releases (compared without case), preferred first
    "prompt": ("text", "caption", "prompt", "top_caption"),
    "url": ("url", "image_url"),
    "width": ("width",),
    "height": ("height",),
    "punsafe": ("punsafe",),
    "pwatermark": ("pwatermark",),
    "aesthetic": ("aesthetic", "aesthetic_score"),
    "language": ("language", "lang"),
}
TEXTS = ("prompt", "url", "language")
# Schema of every batch. Width and height are in pixels, and float because releases mark unknown values as NaN.
# ``image`` is the file of a real image, ``member`` its name in that file if it is a tar.
FIELDS = [(name, pa.string() if name in TEXTS else pa.float64()) for name in NAMES]
SCHEMA = pa.schema([*FIELDS, ("image", pa.string()), ("member", pa.string())])
NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"


def find_columns(schema: pa.Schema, caption_column: str | None, source: Path) -> dict[str, str]:
    """Find the columns of a source.

    Args:
        schema: columns of the source.
        caption_column: name of the caption column; None finds it among the usual names.
        source: named in error messages.

    Returns:
        Our name of each column found -> its name in the source.

    Raises:
        ValueError: there is no caption column, or a column is ambiguous or has the wrong type.
    """
    theirs = {name.lower(): name for name in reversed(schema.names)}  # of names equal up to case, the first
    wanted = NAMES | ({"prompt": (caption_column.lower(),)} if caption_column else {})
    found = {
        ours: next(theirs[name] for name in names if name in theirs)
        for ours, names in wanted.items()
        if any(name in theirs for name in names)
    }
    if "prompt" not in found:
        missing = f"no column {caption_column}" if caption_column else "no caption column"
        raise ValueError(
            f"{source} has {missing}: its columns are {', '.join(schema.names)}; name one with --caption-column"
        )
    for ours, name in found.items():
        if schema.names.count(name) > 1:
            raise ValueError(f"{source} has {schema.names.count(name)} columns named {name}: rename all but one")
        kind = schema.field(name).type
        if not (is_text(kind) or types.is_null(kind) or (ours not in TEXTS and is_number(kind))):
            raise ValueError(f"{source}: column {name} holds {kind}, not {'text' if ours in TEXTS else 'numbers'}")
    return found


def is_text(kind: pa.DataType) -> bool:
    if types.is_dictionary(kind):
        return is_text(kind.value_type)
    plain = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return plain or types.is_binary(kind) or types.is_large_binary(kind)


def is_number(kind: pa.DataType) -> bool:
    return types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)


def normalise_columns(batch: pa.RecordBatch, columns: Mapping[str, str]) -> pa.RecordBatch:
    """Convert a batch to `SCHEMA`; columns that the source lacks are null."""
    arrays: list[Any] = []
    for field in SCHEMA:
        if field.name not in columns:
            arrays.append(pa.nulls(len(batch), field.type))
        elif field.name in TEXTS:
            arrays.append(as_text(batch.column(columns[field.name])))
        else:
            arrays.append(as_number(batch.column(columns[field.name])))
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def as_text(column: pa.Array) -> pa.StringArray:
    """Cast any text column to strings, without validating UTF-8."""
    return pc.cast(column, options=pc.CastOptions(pa.string(), allow_invalid_utf8=True))


def as_number(column: pa.Array) -> pa.DoubleArray:
    """Cast to float64; text that is not a number becomes null."""
    if is_text(column.type):
        texts = as_text(column)
        column = pc.utf8_trim_whitespace(pc.if_else(pc.match_substring_regex(texts, NUMBER), texts, None))
    return pc.cast(column, pa.float64())
