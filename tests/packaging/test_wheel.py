"""The wheel holds the library and nothing else, says what it needs, and works where it is installed alone."""

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import scalecrafter
from scalecrafter.settings import available_settings
from tests.packaging.building import ROOT, build_wheel

EXTRAS = {"benchmark", "sweeps", "demo", "docs", "dev"}
SMOKE = ROOT / "tests/packaging/smoke.py"
CONSUMER = """
from pathlib import Path

import scalecrafter
import scalecrafter.diffusers
from scalecrafter.comfyui.names import original_names

handle: scalecrafter.Handle = scalecrafter.enable(object(), height=64, width=64)
settings: scalecrafter.Settings = scalecrafter.Settings.load(Path("mine.yaml"))
names: list[str] = scalecrafter.available_settings()
version: str = scalecrafter.__version__
pipeline = scalecrafter.diffusers.StableDiffusionPipeline
wrong: int = scalecrafter.available_settings()
scalecrafter.enable(object(), height="64", width=64)
places: int = original_names(object())
"""
MYPY = """[mypy]
ignore_missing_imports = True
disable_error_code = import-untyped
[mypy-diffusers.*,transformers.*]
follow_imports = skip
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def test_it_holds_the_library_only(wheel):
    """Every module, the settings and the mark of typed packages; the other packages of the checkout are not there."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (top,) = [name for name in names if name.endswith("top_level.txt")]
        assert archive.read(top).decode().split() == ["scalecrafter"]
    found = {name for name in names if ".dist-info/" not in name}
    package = ROOT / "scalecrafter"
    expected = {str(path.relative_to(ROOT)) for path in package.rglob("*.py")}
    expected |= {f"scalecrafter/settings/{name}.yaml" for name in available_settings()}
    assert found == expected | {"scalecrafter/py.typed"}
    assert {"scalecrafter/diffusers/pipeline.py", "scalecrafter/comfyui/__init__.py"} <= found
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_metadata_is_that_of_the_project(metadata):
    assert metadata["Version"] == scalecrafter.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra")) >= EXTRAS
    assert "Private :: Do Not Upload" in metadata.get_all("Classifier")
    needed = {re.split(r"[^\w-]", line)[0] for line in metadata.get_all("Requires-Dist") if "extra ==" not in line}
    assert needed == {
        *("torch", "diffusers", "transformers", "accelerate"),
        *("safetensors", "numpy", "pillow", "pyyaml"),
    }


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A fresh environment with the wheel; its dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin/python"
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install"]
    subprocess.run([*pip, "--quiet", "--no-deps", "--no-index", "--force-reinstall", str(wheel)], check=True)
    return folder


@pytest.mark.slow  # a process that imports torch
def test_it_works_where_it_is_installed_alone(installed, tmp_path):
    """Outside the checkout: `smoke.py` enables the method on a small U-Net, and the command answers."""
    script = shutil.copy(SMOKE, tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [installed / "bin/python", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [scalecrafter.__version__, str(next(installed.glob("lib/python*/site-packages")))]
    command = [installed / "bin/scalecrafter", "--version"]
    told = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["scalecrafter", scalecrafter.__version__]


@pytest.mark.slow  # clones and builds
def test_pip_installs_it_from_git(tmp_path):
    """The latest commit, from the repository of this checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone of the repository")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(tmp_path / "there")]
    pip = [sys.executable, "-m", "pip", "install", *options, f"git+file://{ROOT}"]
    done = subprocess.run(pip, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there/scalecrafter/comfyui/nodes.py").is_file()
    assert {path.name for path in (tmp_path / "there").glob("*")} >= {"scalecrafter", "bin"}
    assert not (tmp_path / "there/experiments").exists()


@pytest.mark.slow  # mypy reads torch
def test_type_checkers_see_the_types_of_the_installed_package(wheel, tmp_path):
    """In a program that uses the library: what is right passes, and three mistakes are found."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    (tmp_path / "mypy.ini").write_text(MYPY)
    (tmp_path / "program.py").write_text(CONSUMER)
    environment = os.environ | {"MYPYPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-m", "mypy", "--no-incremental", "--python-executable", sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    marks = ("wrong:", '"64"', "places:")
    lines = [next(i for i, text in enumerate(CONSUMER.splitlines(), 1) if mark in text) for mark in marks]
    assert [int(line.split(":")[1]) for line in errors] == lines, done.stdout


def interpreters() -> list[str]:
    """Every supported Python of this machine but the one that runs: on the path, or among pyenv's versions."""
    candidates = [shutil.which(f"python3.{minor}") for minor in range(10, 15)]
    candidates += map(str, sorted(Path.home().glob(".pyenv/versions/3.1[0-4]*/bin/python")))
    found: dict[str, str] = {}
    for path in filter(None, candidates):  # a pyenv shim may be there and fail
        code = "import sys; print(sys.version_info.minor)"
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() != str(sys.version_info.minor):
            found.setdefault(done.stdout.strip(), path)
    return list(found.values())


@pytest.mark.slow  # starts every interpreter
def test_every_python_of_this_machine_compiles_it(wheel, tmp_path):
    """Syntax and warnings about it. To import it takes a torch for each Python: docs/releasing.md."""
    others = interpreters()
    if not others:
        pytest.skip("no other Python 3.10 to 3.14 on this machine")
    for number, python in enumerate(others):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder := tmp_path / str(number))
        done = subprocess.run(
            [python, "-W", "error", "-m", "compileall", "-q", folder], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{python}: {done.stdout}{done.stderr}"
