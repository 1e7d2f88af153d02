"""`python -m experiments.prompts.synthetic FOLDER --rows N`: parquet files to measure the build with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from experiments.setup.command_line import command

CAPTION = 64  # bytes
FILE = 1_000_000  # rows
LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyzABCDEF", np.uint8)


def synthetic_rows(rows: int, seed: int) -> pa.Table:
    """Captions of random letters, a space after every seven, and sizes of 256 to 2047 pixels."""
    rng = np.random.default_rng(seed)
    captions = LETTERS[rng.integers(0, len(LETTERS), (rows, CAPTION), np.uint8)]
    captions[:, 7:-1:8] = ord(" ")
    offsets = np.arange(0, CAPTION * rows + 1, CAPTION, dtype=np.int32)
    sides = {name: rng.integers(256, 2048, rows, np.int32) for name in ("WIDTH", "HEIGHT")}
    return pa.table(
        {"TEXT": pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(captions)), **sides}
    )


def write_synthetic(folder: Path, rows: int) -> None:
    """Uncompressed files of a million rows, each one row group."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, start in enumerate(tqdm(range(0, rows, FILE), desc="writing", unit="file")):
        table = synthetic_rows(min(FILE, rows - start), index)
        path = folder / f"{index:05d}.parquet"
        pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=FILE)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.prompts.synthetic", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=20_000_000)
    options = parser.parse_args(argv)
    write_synthetic(options.folder, options.rows)


if __name__ == "__main__":
    command(main)
