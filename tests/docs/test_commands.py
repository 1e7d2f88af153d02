"""The commands that pages tell exist: targets of make, modules, options, and overrides that compose. None is run."""

import argparse
import importlib
import os
import re
import shlex
import subprocess
from functools import cache
from importlib.util import find_spec
from unittest.mock import patch

import pytest

from experiments.setup.compose import compose_config
from experiments.setup.grid import named_experiment, read_grid
from scalecrafter.cli import build_parser
from tests.docs.pages import DOCS, ROOT, commands_anywhere

FIRST = ["/README.md", "/CONTRIBUTING.md"]
OTHERS = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
OPTIONS = set(re.findall(r"^([A-Z_]+) \?=", MAKEFILE, re.MULTILINE))
# What takes overrides and nothing else; without an experiment they are for one run, or for the main table.
ONE_RUN = {f"experiments.{name}" for name in ("run", "score", "plan", "report")}
ONE_EXPERIMENT = {f"experiments.{name}" for name in ("reproduce", "table", "fetch")}
ELSEWHERE = {"pip", "venv", "zipfile", "http.server"}
STAND_INS = {"experiment=NAME": "experiment=table1", "method=plain_dilation": "method=direct"}


class Parsed(Exception):
    """A command has understood its options, and would begin."""


def commands_of(page):
    return [tuple(words) for words in commands_anywhere(page) if words[0] != "pip"]


def made_by(words):
    """The commands of this project that make would start."""
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # of a make that runs the tests
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    command = ["make", "--dry-run", "PYTHON=python3", *words]  # given, as to look for one takes half a second
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", " ").splitlines()
    found = [shlex.split(line) for line in lines if " -m experiments." in line and "$" not in line]
    return [("python", *words[1:]) for words in found]


def check_make(words):
    """Targets and options exist; what they start is checked like any command."""
    options = {word.partition("=")[0] for word in words if "=" in word}
    assert options <= OPTIONS
    targets = [word for word in words if "=" not in word]
    assert set(targets) <= TARGETS
    for command in made_by(words):
        check(command)


def check_overrides(module, arguments):
    """Every row composes. One is resolved as well: the others differ in options that have tests of their own."""
    overrides = [STAND_INS.get(word, word) for word in arguments if word not in ("-m", "--multirun")]
    grid = read_grid(named_experiment(overrides) if module in ONE_EXPERIMENT else overrides)
    compose_config(grid.rows[0].overrides)


def check_options(module, arguments):
    """Its parser accepts them, and overrides among them compose."""
    parse = argparse.ArgumentParser.parse_args

    def parsed(self, args=None, namespace=None):
        raise Parsed(parse(self, args, namespace))

    package = find_spec(module).submodule_search_locations
    main = importlib.import_module(f"{module}.__main__" if package else module).main
    with patch.object(argparse.ArgumentParser, "parse_args", parsed), pytest.raises(Parsed) as caught:
        main(arguments)
    check_overrides(module, getattr(caught.value.args[0], "overrides", []))


def check_program(arguments):
    """Those of `scalecrafter`; after the name of a command alone its help."""
    if len(arguments) > 1:
        build_parser().parse_args(arguments)
        return
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([*arguments, "--help"])
    assert ended.value.code == 0


@cache  # many stand on several pages
def check(words):
    """A command, or the name of one."""
    program, *arguments = words
    if program == "make":
        check_make(arguments)
    elif program == "scalecrafter":
        check_program(arguments)
    else:
        flag, module, *arguments = arguments
        assert flag == "-m"
        # Nobody asks for pip's: setuptools then turns its own distutils off in this process, and Inductor needs it.
        assert module in ELSEWHERE or find_spec(module)
        if not arguments or module in ELSEWHERE:
            return  # a name
        if module in ONE_RUN | ONE_EXPERIMENT:
            check_overrides(module, arguments)
        elif arguments != ["--help"]:
            check_options(module, arguments)


# To compose the overrides of all pages takes a quarter of a minute.
@pytest.mark.parametrize("page", [*FIRST, *(pytest.param(page, marks=pytest.mark.slow) for page in OTHERS)])
def test_every_command_on_a_page_can_be_given(page):
    for words in commands_of(page):
        try:
            check(words)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{' '.join(words)}: {error!r}") from error


@pytest.mark.parametrize(
    "line",
    [
        "make previews",
        "make preview PROMPT=x",
        "make reproduce-table MODEL=nope",
        "python -m experiments.nope",
        "python -m experiments.run method=nope",
        "python -m experiments.plan prompts.limits=3",
        "python -m experiments.demo --ports 3",
        "python -m experiments.demo.preview method=direct model=nope",
        "scalecrafter generate x --hight 3",
        "scalecrafter draw x",
    ],
)
def test_a_wrong_command_is_noticed(line):
    with pytest.raises((Exception, SystemExit)):
        check(tuple(shlex.split(line)))
