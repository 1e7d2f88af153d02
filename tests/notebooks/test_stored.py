"""Every notebook is stored as `make notebooks` leaves it: executed, by the code that is in it, without noise."""

import re

import nbformat
import pytest

from notebooks.store import DOCS, ROOT, code_cells, code_digest, faults, pictures
from tests.notebooks.reading import PATHS, numbers, stored

NUMBERS = ["01", "02", "03", "04", "05"]


def test_there_are_five():
    assert [path.stem[:2] for path in PATHS] == NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_it_was_executed_from_top_to_bottom(number):
    notebook = stored(number)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert faults(notebook) == []


@pytest.mark.parametrize("number", NUMBERS)
def test_its_outputs_are_of_the_code_that_is_in_it(number):
    notebook = stored(number)
    assert notebook.metadata.code_sha256 == code_digest(notebook), "run make notebooks, and look at what changed"


@pytest.mark.parametrize("number", NUMBERS)
def test_neither_times_nor_versions_are_stored(number):
    notebook = stored(number)
    assert set(notebook.metadata) == {"code_sha256", "kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"docs"}


@pytest.mark.parametrize("number", NUMBERS)
def test_it_shows_pictures_and_numbers(number):
    kinds = [set(output.get("data", {})) for cell in code_cells(stored(number)) for output in cell.outputs]
    assert any({"image/png", "image/jpeg"} & each for each in kinds)
    assert not any({"image/png", "image/jpeg"} <= each for each in kinds)  # one of them is enough
    assert len(numbers(stored(number))) >= 20


@pytest.mark.parametrize("number", NUMBERS)
def test_measured_numbers_stand_in_outputs_not_in_prose(number):
    """A typed one would stay when the runs change. 4 and 16 times the area, five images and 5% are not measured."""
    prose = [cell.source for cell in stored(number).cells if cell.cell_type == "markdown"]
    assert [text for text in prose if re.search(r"\d\.\d", text)] == []


def test_they_are_small():
    assert sum(path.stat().st_size for path in PATHS) < 3.5e6


def test_the_pages_show_their_pictures_as_they_are_stored():
    found = {name: picture for number in NUMBERS for name, picture in pictures(stored(number)).items()}
    assert len(found) >= 4
    pages = "".join(path.read_text(encoding="utf-8") for path in [*DOCS.glob("*.md"), ROOT / "README.md"])
    for name, picture in found.items():
        assert (DOCS / name).read_bytes() == picture, f"{name}: run make notebooks"
        assert f"({name})" in pages
