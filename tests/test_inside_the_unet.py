"""notebooks/05_inside_the_unet.ipynb is stored as executed, and what it says is what comes out when it runs again."""

import base64
import io
import re

import nbformat
import numpy as np
import pytest
from PIL import Image

from tests.test_notebooks import ROOT, execute

PATH = ROOT / "notebooks/05_inside_the_unet.ipynb"


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(PATH, as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def figures(notebook):
    """All numbers in the text that its cells show."""
    text = "".join(output.data["text/plain"] for output in outputs(notebook) if "image/png" not in output.data)
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def test_it_is_stored_executed_and_small(stored):
    nbformat.validate(stored)
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert len(figures(stored)) >= 20
    assert sum("image/png" in output.data for output in outputs(stored)) >= 3
    assert PATH.stat().st_size < 1e6
    assert str(ROOT) not in PATH.read_text(encoding="utf-8")
    assert not any(output.output_type in ("stream", "error") for output in outputs(stored))


def test_its_sentences_state_what_its_tables_show(stored):
    shown = {f"{number:g}" for number in figures(stored)}
    said = [
        f"{float(number):g}"
        for cell in stored.cells
        if cell.cell_type == "markdown"
        for number in re.findall(r"(?<![\w.])\d+\.\d+(?!\w|\.\d)", cell.source)
    ]
    assert said
    assert set(said) <= shown


PICTURES = {"receptive_fields.png": 0, "feature_maps.png": 2}  # of docs/how_it_works.md: which of the notebook's


@pytest.mark.parametrize("name", PICTURES)
def test_the_page_shows_its_pictures_and_figures(stored, name):
    images = [output.data["image/png"] for output in outputs(stored) if "image/png" in output.data]
    own, shown = (
        np.asarray(Image.open(file).convert("RGB"), float)
        for file in (io.BytesIO(base64.b64decode(images[PICTURES[name]])), ROOT / "docs" / name)
    )
    assert own.shape == shown.shape
    assert np.abs(own - shown).mean() < 2, f"copy the notebook's picture to docs/{name}"
    page = (ROOT / "docs/how_it_works.md").read_text(encoding="utf-8")
    before = page.partition(f"({name})")[0].rsplit("\n\n", 2)[-2]
    said = re.findall(r"\d\.\d+", before)
    sources = "".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
    assert len(said) >= 2
    assert set(said) <= set(re.findall(r"\d\.\d+", sources))


@pytest.mark.slow
def test_running_it_again_gives_its_figures(stored):
    again = execute(PATH, ROOT / "notebooks")
    assert figures(again) == pytest.approx(figures(stored), rel=0.02, abs=0.02)
