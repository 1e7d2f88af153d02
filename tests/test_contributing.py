"""CONTRIBUTING's three steps, followed to the letter, add a method.

The files go where the project finds them as its own: into a copy of conf/ and beside the modules of baselines/. The
notebook does the same in a copy of the whole tree.
"""

import ast
import re
import runpy
import shlex
import shutil
import sys
import textwrap
from pathlib import Path

import nbformat
import pandas as pd
import pytest

import baselines
from experiments.setup import schema
from tests import test_methods
from tests.tiny import tiny_overrides, tiny_pipeline

pytestmark = pytest.mark.usefixtures("own_convolutions")

ROOT = Path(__file__).resolve().parents[1]


def code_blocks():
    """The blocks of CONTRIBUTING: the file, the configuration, the row and the commands."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```\w+\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    return [textwrap.dedent(block) for block in blocks]


@pytest.fixture
def added(tmp_path, monkeypatch):
    """A folder in which the three steps were done."""
    module, configuration, row, _ = code_blocks()
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines/plain_dilation.py").write_text(module, encoding="utf-8")
    shutil.copytree(schema.CONF, tmp_path / "conf")
    (tmp_path / "conf/method/plain_dilation.yaml").write_text(configuration, encoding="utf-8")
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path / "baselines")])
    monkeypatch.setattr(schema, "CONF", tmp_path / "conf")
    monkeypatch.setattr(test_methods, "METHODS", ast.literal_eval(f"{{{row}}}"))
    yield tmp_path
    sys.modules.pop("baselines.plain_dilation", None)


def test_the_commands_put_it_into_a_table(added, pipe_folder, monkeypatch):
    """As they stand on the page, on the tiny pipeline."""
    small = [*tiny_overrides(pipe_folder, added), "prompts.limit=3", "metrics.crops=null", "metrics.repetition=null"]
    for line in code_blocks()[3].splitlines():
        python, option, module, *overrides = shlex.split(line)
        assert (python, option) == ("python", "-m")
        monkeypatch.setattr(sys, "argv", [module, *overrides, *small])
        monkeypatch.delitem(sys.modules, module, raising=False)
        runpy.run_module(module, run_name="__main__")
    table = pd.read_csv(added / "results/table1.csv")
    assert list(table["method"]) == ["direct", "plain_dilation"]
    assert table["fid_r"].notna().all()
    assert table["fid_r"].nunique() == 2


def test_its_row_makes_the_test_of_the_contract_run_on_it(added, tmp_path):
    (name,) = test_methods.METHODS
    test_methods.METHODS["direct"] = []
    test_methods.test_an_image_depends_on_its_seed_only_and_the_pipeline_is_restored(
        tiny_pipeline(tmp_path / "pipeline"), name
    )


def test_the_notebook_shows_the_same_three_steps():
    notebook = nbformat.read(ROOT / "notebooks/04_your_own_method.ipynb", as_version=4)
    source = "\n".join(cell.source + "\n" for cell in notebook.cells)
    for block in code_blocks()[:3]:
        assert block.strip() in source
