"""The notebooks of finished runs execute on any runs: here on tiny ones."""

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient

from notebooks.store import FOLDER, ROOT, code_cells, execute
from tests.notebooks.reading import PATHS, texts

OF_RUNS = [path for path in PATHS if path.stem[:2] in ("01", "02", "03")]


@pytest.fixture(scope="module")
def kernel(finished):
    """A kernel in the notebooks' folder, as an editor starts it, whose imports all notebooks share."""
    places = {"RUNS": str(finished / "runs"), "RESULTS": str(finished / "results")}
    manager = KernelManager(kernel_name="python3")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in places.items():
            patch.setenv(name, value)
        manager.start_kernel(cwd=str(FOLDER))
    yield manager
    manager.shutdown_kernel(now=True)


def forget(manager):
    """Delete every name and go back to the notebooks' folder."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"%reset -f\n%cd {FOLDER}")])
    NotebookClient(notebook, km=manager).execute()


@pytest.mark.parametrize("path", OF_RUNS, ids=lambda path: path.stem)
def test_it_runs_top_to_bottom(path, kernel):
    forget(kernel)
    executed = execute(path, manager=kernel)
    assert all(cell.execution_count for cell in code_cells(executed))
    assert any("image/png" in output.get("data", {}) for cell in code_cells(executed) for output in cell.outputs)
    text = "\n".join(texts(executed))
    assert {"02": "experiment=ablate_dilation"}.get(path.stem[:2], "scalecrafter") in text
    assert "multidiffusion" not in text  # which the tiny runs lack, and the stored ones have


@pytest.mark.slow
def test_the_ablations_say_what_to_run_when_there_are_none(tmp_path):
    """From the root this time, as a terminal starts it."""
    text = "\n".join(texts(execute(FOLDER / "02_ablations.ipynb", ROOT, RESULTS=str(tmp_path))))
    assert "ablate_tau is not there yet: python -m experiments.reproduce experiment=ablate_tau" in text
