"""`python -m notebooks.store`: what it stores, and when it refuses to."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from notebooks import store

PICTURE = """from io import BytesIO
from IPython.display import Image
from PIL import Image as Pillow
file = BytesIO()
Pillow.new("RGB", (2, 2), "red").save(file, "PNG")
Image(file.getvalue())"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with one notebook, ``a``, in place of the project's; its pages are in ``docs``."""
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    monkeypatch.setattr(store, "DOCS", tmp_path / "docs")
    cells = [
        new_markdown_cell("# A"),
        new_code_cell("import os\nprint(os.path.basename(os.getcwd()))"),
        new_code_cell(PICTURE, metadata={"docs": "red.png"}),
        new_code_cell("1", metadata={"docs": "nothing.png"}),  # as when what it draws is not finished
    ]
    write(tmp_path / "a.ipynb", cells)
    return tmp_path


def write(path, cells):
    nbformat.write(new_notebook(cells=cells), path)


def output(text, **options):
    return new_notebook(cells=[new_code_cell("1", execution_count=1, outputs=[new_output(text=text, **options)])])


def test_it_stores_what_the_cells_show_and_nothing_of_when_and_where(folder, capsys):
    store.main([])
    assert capsys.readouterr().out.startswith("a.ipynb: ")
    notebook = nbformat.read(folder / "a.ipynb", as_version=4)
    nbformat.validate(notebook)
    first, *others = store.code_cells(notebook)
    assert [cell.execution_count for cell in (first, *others)] == [1, 2, 3]
    assert first.outputs[0].text == f"{folder.name}\n"  # it was executed beside its file
    assert first.metadata == {}
    assert notebook.metadata.language_info == {"name": "python"}
    assert notebook.metadata.code_sha256 == store.code_digest(notebook)
    assert [path.name for path in (folder / "docs").iterdir()] == ["red.png"]
    assert (folder / "docs/red.png").read_bytes().startswith(b"\x89PNG")
    before = (folder / "a.ipynb").read_bytes()
    store.main(["a"])
    assert (folder / "a.ipynb").read_bytes() == before


def test_another_folder_leaves_the_stored_ones(folder):
    before = (folder / "a.ipynb").read_bytes()
    store.main(["--out", str(folder / "out")])
    assert nbformat.read(folder / "out/a.ipynb", as_version=4).cells[1].outputs
    assert (folder / "a.ipynb").read_bytes() == before
    assert not (folder / "docs").exists()


def test_one_that_fails_or_warns_stays_as_it_was(folder):
    for number, code in enumerate(("1 / 0", "import warnings\nwarnings.warn('old')")):
        path = folder / f"b{number}.ipynb"
        write(path, [new_code_cell(code)])
        before = path.read_bytes()
        with pytest.raises(
            ValueError, match=f"b{number} was not stored: .*(ZeroDivisionError: division|cell 1 warns)"
        ):
            store.main([path.stem])
        assert path.read_bytes() == before


def test_an_unknown_name_is_refused_with_those_that_there_are(folder):
    with pytest.raises(ValueError, match="no notebook b: there are a$"):
        store.main(["b"])


@pytest.mark.parametrize(
    "text", ["/home/someone/runs/a.png", "C:\\Users", "at 0x7f12ab34cd56>", "('/tmp/x',)", f"{store.ROOT}/docs"]
)
def test_what_shows_where_it_was_executed_is_refused(text):
    (fault,) = store.faults(output(text, output_type="stream", name="stdout"))
    assert fault.startswith("cell 1 shows where it was executed")


def test_a_path_of_the_runs_is_refused(monkeypatch):
    monkeypatch.setenv("RUNS", "/data/mine")
    assert store.faults(output("/data/mine/a", output_type="stream", name="stdout"))
    assert not store.faults(output("runs/a and 3/tmp/2", output_type="stream", name="stdout"))


def test_the_digest_is_of_the_code_alone():
    def digest(prose, code):
        return store.code_digest(new_notebook(cells=[new_markdown_cell(prose), new_code_cell(code)]))

    assert digest("a", "1") == digest("b", "1")
    assert digest("a", "1") != digest("a", "2")
