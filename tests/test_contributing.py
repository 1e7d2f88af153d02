"""CONTRIBUTING's three steps, followed to the letter in a copy of the tree, add a method."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from tests.tiny import tiny_overrides

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("baselines", "conf", "eval", "experiments", "scalecrafter", "tests", "pyproject.toml")

# Runs `python -m MODULE ARGUMENTS` for each command in one process, which loads torch once.
ONE_AFTER_ANOTHER = """
import json, runpy, sys
commands = json.loads(sys.argv[1])
sys.path.insert(0, "")
for _, _, module, *arguments in commands:
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
"""


def code_blocks():
    """The blocks of CONTRIBUTING: the file, the configuration, the row and the commands."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```\w+\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    return [textwrap.dedent(block) for block in blocks]


@pytest.fixture
def checkout(tmp_path):
    """A copy of the tree after the three steps."""
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    module, configuration, row, _ = code_blocks()
    (tmp_path / "baselines/plain_dilation.py").write_text(module, encoding="utf-8")
    (tmp_path / "conf/method/plain_dilation.yaml").write_text(configuration, encoding="utf-8")
    tests = tmp_path / "tests/test_methods.py"
    tests.write_text(tests.read_text().replace("METHODS = {\n", f"METHODS = {{\n    {row}", 1), encoding="utf-8")
    return tmp_path


def test_the_three_steps(checkout, pipe_folder):
    """The commands of the page on the tiny pipeline, and the tests of the contract."""
    small = [*tiny_overrides(pipe_folder, checkout), "prompts.limit=3", "metrics.crops=null"]
    commands = [[*shlex.split(line), *small] for line in code_blocks()[3].splitlines()]
    a_part = "every_method or plain_dilation and left_as_it_was"
    commands.append(["python", "-m", "pytest", "-q", "-k", a_part, "tests/test_methods.py"])
    command = [sys.executable, "-c", ONE_AFTER_ANOTHER, json.dumps(commands)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    table = pd.read_csv(checkout / "results/table1.csv")
    assert list(table["method"]) == ["direct", "plain_dilation"]
    assert table["fid_r"].notna().all()


def test_the_notebook_shows_the_same_three_steps():
    notebook = nbformat.read(ROOT / "notebooks/04_your_own_method.ipynb", as_version=4)
    source = "\n".join(cell.source + "\n" for cell in notebook.cells)
    for block in code_blocks()[:3]:
        assert block.strip() in source
