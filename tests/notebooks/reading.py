"""The stored notebooks, and the tables and numbers that they and the pages show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import nbformat
from nbformat import NotebookNode

from notebooks.store import FOLDER, code_cells

PATHS = sorted(FOLDER.glob("*.ipynb"))
NUMBER = re.compile(r"[-+]?\d+\.\d+")
Table = list[dict[str, str]]  # its rows, by the titles of the columns


@cache
def stored(number: str) -> NotebookNode:
    """The notebook whose name begins with ``number``; not to be changed."""
    (path,) = (path for path in PATHS if path.stem.startswith(number))
    return nbformat.read(path, as_version=4)


def texts(notebook: NotebookNode) -> Iterator[str]:
    """What each output says in words: a table or sentence, else what was printed; nothing for a picture."""
    for output in (output for cell in code_cells(notebook) for output in cell.outputs):
        data = output.get("data", {})
        if not any(kind.startswith("image/") for kind in data):
            yield output.get("text") or data.get("text/markdown") or data["text/plain"]


def numbers(notebook: NotebookNode) -> list[float]:
    return [float(number) for number in NUMBER.findall("\n".join(texts(notebook)))]


def words(notebook: NotebookNode) -> str:
    """All that it says but the numbers, the stars and the widths of columns, which depend on them."""
    return re.sub(r"[\s:-]+", " ", NUMBER.sub("#", "\n".join(texts(notebook)).replace("*", "")))


def tables(text: str) -> list[Table]:
    """The tables of a text in Markdown."""
    found: list[Table] = []
    titles: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            titles = []
        elif not titles:
            titles = cells(line)
            found.append([])
        elif set(line) - set("|:-"):
            found[-1].append(dict(zip(titles, cells(line), strict=True)))
    return found


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def shown_tables(number: str) -> list[Table]:
    """All tables that the cells of a stored notebook show."""
    return [table for text in texts(stored(number)) for table in tables(text)]


def value(cell: str) -> float:
    """The number that a cell begins with."""
    return float(cell.split()[0].rstrip("%"))
