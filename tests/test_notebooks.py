"""The notebooks run top to bottom on finished runs, and are stored without outputs."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def execute(path, folder):
    """The notebook after running in a kernel that starts in ``folder``; an error if a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    return NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()


def shown(notebook):
    """All that its cells show."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(str(output.get("text", output.get("data", ""))) for output in outputs)


@pytest.fixture(scope="module")
def executed(finished):
    """Each notebook after running on finished runs, from its own folder as an editor starts it, two at a time; what it
    draws itself is drawn at its smallest.
    """
    settings = {"RUNS": finished / "runs", "RESULTS": finished / "results", "PROMPTS_LIMIT": 3, "STEPS": 2}
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        for name, value in settings.items():
            patch.setenv(name, str(value))
        return dict(zip(NOTEBOOKS, pool.map(partial(execute, folder=ROOT / "notebooks"), NOTEBOOKS), strict=True))


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
def test_it_runs_top_to_bottom(path, executed):
    assert all(cell.execution_count for cell in executed[path].cells if cell.cell_type == "code")
    text = shown(executed[path])
    assert "image/png" in text
    expected = {"02": "experiment=ablate_dilation", "04": "plain_dilation"}
    assert expected.get(path.stem[:2], "scalecrafter") in text


def test_the_ablations_say_what_to_run_when_there_are_none(tmp_path, monkeypatch):
    """From the root this time, as `make notebooks` starts it."""
    monkeypatch.setenv("RESULTS", str(tmp_path))
    text = shown(execute(ROOT / "notebooks/02_ablations.ipynb", ROOT))
    assert "ablate_tau is not there yet: python -m experiments.reproduce experiment=ablate_tau" in text
