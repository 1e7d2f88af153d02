"""Batches of rows from files of metadata (parquet, csv, tsv, txt) and from what img2dataset writes."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from experiments.prompts import images
from experiments.prompts.columns import SCHEMA, find_columns, normalise_columns

AT_ONCE = 1 << 16  # rows of a batch: some MB
BLOCK = 1 << 22  # bytes of a text file at once
BUFFER = 1 << 20  # bytes of a parquet column at once, so that the size of its row groups does not matter
TABLES = (".parquet", ".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Batch:
    """Some rows under `columns.SCHEMA`, and how many were no rows, by reason."""

    rows: pa.RecordBatch
    broken: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Source:
    """A file or folder of rows; ``columns`` are those that it has, ours to its own, ``count`` its rows where known."""

    path: Path
    columns: Mapping[str, str]
    read: Callable[[], Iterator[Batch]]
    count: int | None = None


def find_sources(paths: Iterable[Path]) -> list[Path]:
    """Files as they are; of a folder its tar shards, or itself if it holds pictures, or its tables."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"nothing at {path}: give files of metadata or img2dataset's output folder")
        if path.is_file():
            found.append(path)
        elif tars := sorted(path.glob("*.tar")):
            found += tars
        elif images.holds_pictures(path):
            found.append(path)
        elif tables := sorted(file for file in path.iterdir() if file.suffix.lower() in TABLES):
            found += tables
        else:
            raise ValueError(f"{path} holds no .parquet, .csv, .tsv, .txt or .tar file and no pictures")
    return list(dict.fromkeys(found))


def open_source(path: Path, caption_column: str | None) -> Source:
    """Look at the columns, read no rows yet; ValueError for what cannot be read or has no captions."""
    kind = path.suffix.lower()
    with naming(path):
        if path.is_dir():
            return open_pictures(path, partial(images.folder_samples, path), caption_column)
        if kind == ".tar":
            return open_pictures(path, partial(images.tar_samples, path), caption_column)
        if kind == ".parquet":
            with pa.parquet.ParquetFile(path) as file:
                columns = find_columns(file.schema_arrow, caption_column, path)
                return Source(path, columns, partial(parquet_batches, path, columns), file.metadata.num_rows)
        if kind in (".csv", ".tsv", ".txt"):
            with open_text(path, None, []) as reader:
                names = pa.schema([(name, pa.null()) for name in reader.schema.names])  # types here are guesses
            columns = find_columns(names, caption_column if kind != ".txt" else None, path)
            return Source(path, columns, partial(text_batches, path, columns))
    raise ValueError(f"{path} is of no known kind: {', '.join(TABLES)}, .tar or a folder")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Says which file it is that cannot be read."""
    try:
        yield
    except (pa.ArrowException, tarfile.TarError, EOFError, OSError, UnicodeError) as error:
        raise ValueError(f"{path} is damaged or not what its name says: {error}") from error


def parquet_batches(path: Path, columns: Mapping[str, str]) -> Iterator[Batch]:
    with naming(path), pa.parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
        for batch in file.iter_batches(AT_ONCE, columns=list(columns.values())):
            yield Batch(normalise_columns(batch, columns))


def text_batches(path: Path, columns: Mapping[str, str]) -> Iterator[Batch]:
    broken: list[str] = []
    with naming(path), open_text(path, columns, broken) as reader:
        for batch in reader:
            yield Batch(normalise_columns(batch, columns))
    yield Batch(pa.RecordBatch.from_pylist([], SCHEMA), Counter(broken))


def open_text(path: Path, columns: Mapping[str, str] | None, broken: list[str]) -> pa.csv.CSVStreamingReader:
    """A reader of csv, tsv or lines of text, all columns as text; fills ``broken`` with a reason for each row that has
    too many or too few cells.
    """

    def skip(row: object) -> str:
        broken.append("broken row")
        return "skip"

    kind = path.suffix.lower()
    lines = kind == ".txt"
    names = list(columns.values()) if columns else []
    return pa.csv.open_csv(
        path,
        pa.csv.ReadOptions(block_size=BLOCK, column_names=["text"] if lines else None),
        pa.csv.ParseOptions(
            delimiter={".csv": ",", ".tsv": "\t", ".txt": "\x1f"}[kind],  # \x1f: a line of text is one cell
            quote_char=False if lines else '"',
            newlines_in_values=not lines,
            invalid_row_handler=skip,
        ),
        pa.csv.ConvertOptions(
            check_utf8=False, column_types=dict.fromkeys(names, pa.string()), include_columns=names, null_values=[]
        ),
    )


def open_pictures(path: Path, samples: Callable[[], Iterator[images.Sample]], caption_column: str | None) -> Source:
    columns = images.find_sample_columns(samples(), caption_column, path)
    return Source(path, columns, partial(picture_batches, path, samples, columns))


def picture_batches(
    path: Path, samples: Callable[[], Iterator[images.Sample]], columns: Mapping[str, str]
) -> Iterator[Batch]:
    with naming(path):
        for rows, broken in images.sample_batches(samples(), columns):
            yield Batch(rows, broken)


def source_facts(source: Source) -> dict[str, str | int]:
    """Path, size and SHA-256 of a file; for a folder of pictures the SHA-256 is that of its files' names and sizes."""
    if source.path.is_file():
        digest = hashlib.sha256()
        with source.path.open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
        return {"path": str(source.path), "bytes": os.path.getsize(source.path), "sha256": digest.hexdigest()}
    files = sorted(path for path in source.path.rglob("*") if path.is_file())
    listing = "".join(f"{path.relative_to(source.path).as_posix()} {path.stat().st_size}\n" for path in files)
    names = hashlib.sha256(listing.encode()).hexdigest()
    return {"path": str(source.path), "files": len(files), "sha256": names}
