"""Read metadata in batches of rows: parquet, csv, tsv and txt files, and the output of img2dataset."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from eval.files import sha256_of_file
from experiments.prompts import img2dataset
from experiments.prompts.columns import SCHEMA, find_columns, normalise_columns

BATCH_ROWS = 1 << 16  # a few MB
TEXT_BLOCK = 1 << 22  # bytes of a text file read at once
PARQUET_BUFFER = 1 << 20  # bytes of a parquet column read at once, so that large row groups need no more memory
TABLES = (".parquet", ".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Batch:
    """Rows under `columns.SCHEMA`, and the number of unreadable rows by reason."""

    rows: pa.RecordBatch
    broken: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Source:
    """A file or folder of rows. ``columns`` maps our names to its own; ``count`` is the number of rows, if known."""

    path: Path
    columns: Mapping[str, str]
    read: Callable[[], Iterator[Batch]]
    count: int | None = None


def find_sources(paths: Iterable[Path]) -> list[Path]:
    """Expand folders into sources and drop repetitions.

    A folder stands for its tar shards, else for itself if it contains images, else for its tables.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: a folder contains none of these.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"nothing at {path}: pass metadata files or an output folder of img2dataset")
        if path.is_file():
            found.append(path)
        elif tars := sorted(path.glob("*.tar")):
            found += tars
        elif img2dataset.contains_images(path):
            found.append(path)
        elif tables := sorted(file for file in path.iterdir() if file.suffix.lower() in TABLES):
            found += tables
        else:
            raise ValueError(f"{path} contains no .parquet, .csv, .tsv, .txt or .tar file and no images")
    return list(dict.fromkeys(found))


def open_source(path: Path, caption_column: str | None) -> Source:
    """Read the columns of a source, not its rows; ValueError if it cannot be read or has no captions."""
    kind = path.suffix.lower()
    with errors_naming(path):
        if path.is_dir():
            return open_images(path, partial(img2dataset.folder_samples, path), caption_column)
        if kind == ".tar":
            return open_images(path, partial(img2dataset.shard_samples, path), caption_column)
        if kind == ".parquet":
            with pa.parquet.ParquetFile(path) as file:
                columns = find_columns(file.schema_arrow, caption_column, path)
                return Source(path, columns, partial(parquet_batches, path, columns), file.metadata.num_rows)
        if kind in (".csv", ".tsv", ".txt"):
            with open_text(path, None, []) as reader:
                names = pa.schema([(name, pa.null()) for name in reader.schema.names])  # ignore the guessed types
            columns = find_columns(names, caption_column if kind != ".txt" else None, path)
            return Source(path, columns, partial(text_batches, path, columns))
    raise ValueError(f"{path} has an unknown suffix: use {', '.join(TABLES)}, .tar or a folder")


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Turn errors of the readers into a ValueError that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise ValueError(f"{path} is damaged or not of the type that its suffix says: {error}") from error


def parquet_batches(path: Path, columns: Mapping[str, str]) -> Iterator[Batch]:
    with errors_naming(path), pa.parquet.ParquetFile(path, pre_buffer=False, buffer_size=PARQUET_BUFFER) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=list(columns.values())):
            yield Batch(normalise_columns(batch, columns))


def text_batches(path: Path, columns: Mapping[str, str]) -> Iterator[Batch]:
    broken: list[str] = []
    with errors_naming(path), open_text(path, columns, broken) as reader:
        for batch in reader:
            yield Batch(normalise_columns(batch, columns))
    yield Batch(pa.RecordBatch.from_pylist([], SCHEMA), Counter(broken))


def open_text(path: Path, columns: Mapping[str, str] | None, broken: list[str]) -> pa.csv.CSVStreamingReader:
    """Open a csv, tsv or txt file with all columns as text.

    ``broken`` gets one entry for each skipped row, which has too many or too few fields.
    """

    def skip(row: object) -> str:
        broken.append("broken row")
        return "skip"

    kind = path.suffix.lower()
    lines = kind == ".txt"
    names = list(columns.values()) if columns else []
    return pa.csv.open_csv(
        path,
        pa.csv.ReadOptions(block_size=TEXT_BLOCK, column_names=["text"] if lines else None),
        pa.csv.ParseOptions(
            delimiter={".csv": ",", ".tsv": "\t", ".txt": "\x1f"}[kind],  # \x1f: each line of a txt file is one field
            quote_char=False if lines else '"',
            newlines_in_values=not lines,
            invalid_row_handler=skip,
        ),
        pa.csv.ConvertOptions(
            check_utf8=False, column_types=dict.fromkeys(names, pa.string()), include_columns=names, null_values=[]
        ),
    )


def open_images(path: Path, samples: Callable[[], Iterator[img2dataset.Sample]], caption_column: str | None) -> Source:
    columns = img2dataset.find_sample_columns(samples(), caption_column, path)
    return Source(path, columns, partial(image_batches, path, samples, columns))


def image_batches(
    path: Path, samples: Callable[[], Iterator[img2dataset.Sample]], columns: Mapping[str, str]
) -> Iterator[Batch]:
    with errors_naming(path):
        for rows, broken in img2dataset.sample_batches(samples(), columns):
            yield Batch(rows, broken)


def source_facts(source: Source) -> dict[str, str | int]:
    """Path, size and SHA-256 of a file. For a folder of images, the SHA-256 covers its file names and sizes."""
    if source.path.is_file():
        digest = sha256_of_file(source.path)
        return {"path": str(source.path), "bytes": os.path.getsize(source.path), "sha256": digest}
    files = sorted(path for path in source.path.rglob("*") if path.is_file())
    listing = "".join(f"{path.relative_to(source.path).as_posix()} {path.stat().st_size}\n" for path in files)
    names = hashlib.sha256(listing.encode()).hexdigest()
    return {"path": str(source.path), "files": len(files), "sha256": names}
