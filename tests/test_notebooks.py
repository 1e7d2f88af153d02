"""The notebooks run top to bottom on finished runs, and are stored without outputs. The fifth one needs no runs, and
has tests of its own.
"""

import os
from pathlib import Path

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0[1-4]*.ipynb"))  # of finished runs


def execute(path, folder, manager=None, **environment):
    """The notebook after running in a kernel that starts in ``folder``, or in the running one of ``manager``; an error
    if a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    options = {"kernel_name": "python3", "resources": {"metadata": {"path": str(folder)}}}
    client = NotebookClient(notebook, km=manager, timeout=300, **options)
    return client.execute(env=os.environ | environment)


@pytest.fixture(scope="module")
def kernel(finished):
    """A kernel in the notebooks' folder, as an editor starts it, whose imports all notebooks share; what they sample
    themselves is as small as possible.
    """
    places = {"RUNS": str(finished / "runs"), "RESULTS": str(finished / "results")}
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(ROOT / "notebooks"), env=os.environ | places | {"PROMPTS_LIMIT": "3", "STEPS": "2"})
    yield manager
    manager.shutdown_kernel(now=True)


def forget(manager):
    """Delete every name and go back to the notebooks' folder."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"%reset -f\n%cd {ROOT / 'notebooks'}")])
    NotebookClient(notebook, km=manager).execute()


def shown(notebook):
    """All that its cells show."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(str(output.get("text", output.get("data", ""))) for output in outputs)


def test_there_are_five():
    assert [path.stem[:2] for path in sorted((ROOT / "notebooks").glob("*.ipynb"))] == ["01", "02", "03", "04", "05"]


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


# The last one runs a whole experiment; that its steps work is tested with CONTRIBUTING's, which are the same.
EXECUTED = [pytest.param(path, marks=pytest.mark.slow if "04" in path.stem else ()) for path in NOTEBOOKS]


@pytest.mark.parametrize("path", EXECUTED, ids=lambda path: path.stem)
def test_it_runs_top_to_bottom(path, kernel):
    forget(kernel)
    executed = execute(path, ROOT / "notebooks", kernel)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    text = shown(executed)
    assert "image/png" in text
    expected = {"02": "experiment=ablate_dilation", "04": "plain_dilation"}
    assert expected.get(path.stem[:2], "scalecrafter") in text


@pytest.mark.slow
def test_the_ablations_say_what_to_run_when_there_are_none(tmp_path):
    """From the root this time, as `make notebooks` starts it."""
    text = shown(execute(ROOT / "notebooks/02_ablations.ipynb", ROOT, RESULTS=str(tmp_path)))
    assert "ablate_tau is not there yet: python -m experiments.reproduce experiment=ablate_tau" in text
