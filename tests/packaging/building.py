"""The wheel, built as pip builds it, from a copy of the files that it is made of: nothing is left in the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INTO_THE_WHEEL = ("pyproject.toml", "README.md", "LICENSE", "scalecrafter")
BESIDE = ("baselines", "eval", "experiments", "conf", "tests", "docs", "notebooks")  # must stay out of it
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


def build_wheel(folder: Path) -> Path:
    """Build it in ``folder``, without network; skipped where setuptools is too old to read pyproject.toml."""
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("building the wheel needs setuptools 77: pip install -e .[dev]")
    source = folder / "source"
    source.mkdir()
    for name in INTO_THE_WHEEL:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    for name in BESIDE:
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel
