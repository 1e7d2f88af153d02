"""`python -m experiments.prompts.synthetic FOLDER --rows N`: parquet files for benchmarking the build."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from experiments.setup.command_line import command

CAPTION_BYTES = 64
FILE_ROWS = 1_000_000
LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyzABCDEF", np.uint8)


def synthetic_rows(rows: int, seed: int) -> pa.Table:
    """Rows with captions of random letters, a space after every seven, and sides of 256 to 2047 pixels."""
    rng = np.random.default_rng(seed)
    captions = LETTERS[rng.integers(0, len(LETTERS), (rows, CAPTION_BYTES), np.uint8)]
    captions[:, 7:-1:8] = ord(" ")
    offsets = np.arange(0, CAPTION_BYTES * rows + 1, CAPTION_BYTES, dtype=np.int32)
    sides = {name: rng.integers(256, 2048, rows, np.int32) for name in ("WIDTH", "HEIGHT")}
    return pa.table(
        {"TEXT": pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(captions)), **sides}
    )


def write_synthetic(folder: Path, rows: int) -> None:
    """Write uncompressed files of a million rows, each with a single row group."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, start in enumerate(tqdm(range(0, rows, FILE_ROWS), desc="writing", unit="file")):
        table = synthetic_rows(min(FILE_ROWS, rows - start), index)
        path = folder / f"{index:05d}.parquet"
        pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=FILE_ROWS)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.prompts.synthetic", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=20_000_000)
    options = parser.parse_args(argv)
    write_synthetic(options.folder, options.rows)


if __name__ == "__main__":
    command(main)
