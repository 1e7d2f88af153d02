"""`python -m notebooks.store [NAME ...]` (make notebooks): execute notebooks from top to bottom on finished runs, and
store them with what their cells show.

A notebook that fails, warns, or shows where it was executed stays as it was. Neither times nor versions are stored.
The picture of a cell whose metadata have ``"docs": NAME`` is also written to docs/NAME, for the pages.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from eval.files import write_atomically
from experiments.setup.command_line import command

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
DOCS = ROOT / "docs"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# Folders that hold a checkout, an environment or temporary files, and where objects lie in memory.
ELSEWHERE = re.compile(
    r"(?<![\w.])/(?:home|root|Users|private|tmp|var|usr|opt|mnt|srv|work)/|\b[A-Z]:\\|\b0x[0-9a-f]{6,}"
)
LONGEST = 1800  # seconds of a cell
QUIET = {"PYTHONWARNINGS": "ignore:IProgress not found"}  # of tqdm, where no widgets are installed


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def code_digest(notebook: NotebookNode) -> str:
    """SHA-256 of the code of all cells: a stored notebook names the code that its outputs come from."""
    return hashlib.sha256("\0".join(cell.source for cell in code_cells(notebook)).encode()).hexdigest()


def execute(path: Path, folder: Path | None = None, manager: Any = None, **environment: str) -> NotebookNode:
    """The notebook after running in a kernel that starts beside it, or in ``folder``, or in the running one of
    ``manager``.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=LONGEST,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder or path.parent)}},
    )
    return client.execute(env=os.environ | QUIET | environment)


def shown(outputs: Sequence[NotebookNode]) -> str:
    """All text that they show; pictures are left out."""
    parts = []
    for output in outputs:
        kinds = {"text/plain": output.get("text", ""), **output.get("data", {})}
        parts += [text for kind, text in kinds.items() if kind.startswith("text/")]
    return "\n".join(parts)


def faults(notebook: NotebookNode) -> list[str]:
    """Why an executed notebook cannot be stored."""
    found = []
    given = [place for place in map(os.environ.get, ("RUNS", "RESULTS")) if place and Path(place).is_absolute()]
    folders = [str(ROOT), sys.prefix, *given]
    for cell in code_cells(notebook):
        text = shown(cell.outputs)
        where = f"cell {cell.execution_count}"
        places = [folder for folder in folders if folder in text] + ELSEWHERE.findall(text)
        if any(output.output_type == "error" or output.get("name") == "stderr" for output in cell.outputs):
            found.append(f"{where} warns or fails: {text.strip()[:500]}")
        elif places:
            found.append(f"{where} shows where it was executed: {places[0]}")
    return found


def storable(notebook: NotebookNode) -> NotebookNode:
    """An executed notebook without what depends on when and where it was, and with the digest of its code."""
    notebook.metadata = NotebookNode(
        code_sha256=code_digest(notebook), kernelspec=KERNEL, language_info={"name": "python"}
    )
    for cell in code_cells(notebook):
        cell.metadata.pop("execution", None)
    return notebook


def pictures(notebook: NotebookNode) -> dict[str, bytes]:
    """The pictures that pages show, by the name of their file in docs/: the last one of each cell that names one."""
    found = {}
    for cell in code_cells(notebook):
        name = cell.metadata.get("docs", "")
        kind = {".png": "image/png", ".jpg": "image/jpeg"}.get(Path(name).suffix)
        for output in cell.outputs:
            if encoded := output.get("data", {}).get(kind):
                found[name] = base64.b64decode(encoded)
    return found


def main(argv: Sequence[str]) -> None:
    names = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    parser = argparse.ArgumentParser(prog="python -m notebooks.store", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--out", type=Path, help="write them into this folder, and leave the stored ones and docs/")
    options = parser.parse_args(argv)
    if unknown := sorted(set(options.names) - set(names)):
        raise ValueError(f"no notebook {', '.join(unknown)}: there are {', '.join(names)}")
    for name in options.names or names:
        start = time.monotonic()
        try:
            notebook = storable(execute(FOLDER / f"{name}.ipynb"))
        except CellExecutionError as error:
            raise ValueError(f"{name} was not stored: {error.ename}: {error.evalue}") from error
        if found := faults(notebook):
            raise ValueError(f"{name} was not stored: {'; '.join(found)}")
        path = (options.out or FOLDER) / f"{name}.ipynb"
        write_atomically(path, nbformat.writes(notebook) + "\n")
        for file, picture in pictures(notebook).items() if options.out is None else ():
            write_atomically(DOCS / file, picture)
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    command(main)
