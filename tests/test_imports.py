"""The import order, read from the source text: who may import whom, folder by folder, and limits that keep it
readable.
"""

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the bottom up: a unit may import itself and every unit below it.
ORDER = [
    "scalecrafter",
    "baselines",
    "eval",
    "experiments.scenes",
    "experiments.prompts",
    "experiments.setup",
    "experiments.fetch",
    "experiments.cost",
    "experiments.sampling",
    "experiments.scoring",
    "experiments.results",
    "experiments.demo",
    "experiments",  # the commands
]
ALLOWED = {
    "scalecrafter": {"scalecrafter"},
    "baselines": {"baselines", "scalecrafter"},
    "eval": {"eval"},
    **{unit: set(ORDER[: ORDER.index(unit) + 1]) for unit in ORDER if unit.startswith("experiments")},
}
ALLOWED["experiments.scenes"] -= {"experiments.prompts"}
EVERYBODY = {"experiments.setup.command_line"}  # imports nothing: how a command ends
TOP_LEVEL = {"scalecrafter", "baselines", "eval", "experiments"}
ONLY_IN_EXPERIMENTS = {"hydra", "omegaconf", "wandb"}
LIBRARY_DEPENDENCIES = {"torch", "diffusers", "transformers", "yaml", "numpy", "PIL", "safetensors", "accelerate"}
SOURCES = sorted(path for package in TOP_LEVEL for path in (ROOT / package).rglob("*.py"))


def imported_modules(source: str) -> list[str]:
    """Full names of all absolutely imported modules, wherever in the file (relative imports stay in the package)."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name not in {n.rpartition(".")[0] for n in names} or name.count(".") == 0]


def unit_of(module: str) -> str | None:
    """The folder of the order that a module of this project lies in; None for others."""
    if module.partition(".")[0] not in TOP_LEVEL:
        return None
    return max((unit for unit in ORDER if module == unit or module.startswith(f"{unit}.")), key=len)


def allowed(unit: str, name: str) -> bool:
    """Whether a file of `unit` may import the module `name`."""
    top, other = name.partition(".")[0], unit_of(name)
    if any(name == free or name.startswith(f"{free}.") for free in EVERYBODY):
        return unit.startswith("experiments")
    if other is not None:
        return other in ALLOWED[unit] and name != "eval"  # a bare `import eval` hides the builtin
    if top in {"tests", "conf", "notebooks"}:
        return False
    if top in ONLY_IN_EXPERIMENTS:
        return unit.startswith("experiments")
    if unit == "scalecrafter":  # what `pip install scalecrafter` brings
        return top in LIBRARY_DEPENDENCIES or top in sys.stdlib_module_names
    return True


def violations(unit: str, source: str) -> list[str]:
    """What `source`, a file of `unit`, imports against the order."""
    return [name for name in imported_modules(source) if not allowed(unit, name)]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_imports_go_down_only() -> None:
    found = {}
    for path in SOURCES:
        if bad := violations(unit_of(module_of(path)) or "", path.read_text(encoding="utf-8")):
            found[str(path.relative_to(ROOT))] = bad
    assert found == {}


def test_everything_imported_is_declared() -> None:
    """In pyproject.toml: what `scalecrafter` imports in the dependencies, the rest there or in the extra benchmark,
    and for the page in the extra demo.
    """
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    library = project["dependencies"]
    benchmark = [*library, *project["optional-dependencies"]["benchmark"]]
    demo = [*benchmark, *project["optional-dependencies"]["demo"]]
    providers = importlib.metadata.packages_distributions()
    undeclared = {}
    for path in SOURCES:
        place = path.relative_to(ROOT).parts
        lines = library if place[0] == "scalecrafter" else demo if place[:2] == ("experiments", "demo") else benchmark
        declared = {re.split(r"[<>=\[ ]", line)[0].lower().replace("_", "-") for line in lines}
        for name in {name.partition(".")[0] for name in imported_modules(path.read_text(encoding="utf-8"))}:
            if name not in sys.stdlib_module_names | TOP_LEVEL:
                found = {each.lower().replace("_", "-") for each in providers.get(name, [name])}
                if not found & declared:
                    undeclared.setdefault(name, str(path.relative_to(ROOT)))
    assert undeclared == {}


def test_no_circles() -> None:
    """Between modules, imports inside functions included."""
    modules = {module_of(path): path for path in SOURCES}
    graph = {
        name: {other for other in imported_modules(path.read_text(encoding="utf-8")) if other in modules} - {name}
        for name, path in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize(
    ("unit", "source"),
    [
        ("eval", "import scalecrafter"),
        ("scalecrafter", "def f():\n    from baselines.direct import Direct"),
        ("scalecrafter", "import scipy.linalg"),
        ("baselines", "from omegaconf import OmegaConf"),
        ("baselines", "from eval.kid import features_to_kid"),
        ("experiments", "import eval"),
        ("experiments", "from tests.helpers import tiny"),
        ("experiments.setup", "from experiments.sampling.manifest import Record"),
        ("experiments.cost", "from experiments.results import plots"),
        ("experiments.scoring", "from experiments.run import job"),
        ("experiments.scenes", "from experiments.prompts import Prompt"),
    ],
)
def test_rule_catches_a_violation(unit: str, source: str) -> None:
    assert violations(unit, source)


def test_rule_allows_what_it_should() -> None:
    assert violations("experiments", "import wandb\nfrom eval.kid import features_to_kid") == []
    assert violations("experiments.results", "from experiments.scoring.runs import score_run") == []
    assert violations("scalecrafter", "import math\nimport torch\nfrom . import schedule") == []


def test_files_functions_and_folders_stay_small() -> None:
    """No file over 250 lines, no function over 50, no folder of experiments/ over 12 modules; every package says in
    its docstring what comes in and what goes out.
    """
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        assert len(source.splitlines()) <= 250, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < 50, f"{path}: {node.name}"
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(source)), path
            if "experiments" in path.parts:
                assert len(list(path.parent.glob("[!_]*.py"))) <= 12, path.parent


def test_what_has_to_stand_twice_is_the_same() -> None:
    """`one_line`: importing the library loads torch, and what is wrong with a command is said without it."""
    found = set()
    for name in ("scalecrafter/cli.py", "experiments/setup/command_line.py"):
        source = (ROOT / name).read_text(encoding="utf-8")
        (function,) = (node for node in ast.parse(source).body if getattr(node, "name", "") == "one_line")
        found.add(ast.unparse(function))
    assert len(found) == 1


def test_every_module_at_the_top_of_experiments_is_a_command() -> None:
    for path in (ROOT / "experiments").glob("*.py"):
        if path.name != "__init__.py":
            assert "command(main)" in path.read_text(encoding="utf-8"), path
