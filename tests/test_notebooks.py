"""The notebooks run top to bottom on finished runs, and are stored without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def on_finished_runs(finished, monkeypatch):
    """Where a kernel started now reads its runs; what it draws itself is drawn at its smallest."""
    monkeypatch.setenv("RUNS", str(finished / "runs"))
    monkeypatch.setenv("RESULTS", str(finished / "results"))
    monkeypatch.setenv("PROMPTS_LIMIT", "3")
    monkeypatch.setenv("STEPS", "2")


def execute(path, folder):
    """The notebook after running in a kernel that starts in ``folder``, and all text that it shows."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return notebook, "".join(str(output.get("text", output.get("data", ""))) for output in outputs)


def test_there_are_four():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
    assert str(ROOT) not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_its_own_folder(path, on_finished_runs):
    """As an editor starts it; no cell fails, and pictures or tables are shown."""
    notebook, text = execute(path, ROOT / "notebooks")
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert "image/png" in text
    expected = {"02": "experiment=ablate_dilation", "04": "plain_dilation"}
    assert expected.get(path.stem[:2], "scalecrafter") in text


def test_the_ablations_say_what_to_run_when_there_are_none(tmp_path, monkeypatch):
    """From the root this time, as `make notebooks` starts it."""
    monkeypatch.setenv("RESULTS", str(tmp_path))
    _, text = execute(ROOT / "notebooks/02_ablations.ipynb", ROOT)
    assert "ablate_tau is not there yet: python -m experiments.reproduce experiment=ablate_tau" in text
