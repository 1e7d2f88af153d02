"""The version stands in one place, and everything that tells it agrees."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest

import scalecrafter
from scalecrafter.cli import main

ROOT = Path(__file__).resolve().parents[2]


def test_it_is_a_semantic_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", scalecrafter.__version__)


def test_it_is_written_once():
    """In `scalecrafter/__init__.py`: pyproject.toml reads it from there, CITATION.cff has none."""
    for name in ("pyproject.toml", "CITATION.cff"):
        assert scalecrafter.__version__ not in (ROOT / name).read_text(encoding="utf-8"), name


def test_the_installed_metadata_agree():
    """Those of `pip install -e .`: run make setup after changing the version."""
    assert version("scalecrafter") == scalecrafter.__version__


def test_the_command_tells_it(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.split() == ["scalecrafter", scalecrafter.__version__]
