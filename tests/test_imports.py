"""The import rule, read from the source text: who may import whom, and who may know Hydra, OmegaConf and W&B."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "scalecrafter": {"scalecrafter"},
    "baselines": {"baselines", "scalecrafter"},
    "eval": {"eval"},
    "experiments": {"experiments", "baselines", "eval", "scalecrafter"},
}
ONLY_IN_EXPERIMENTS = {"hydra", "omegaconf", "wandb"}
LIBRARY_DEPENDENCIES = {"torch", "diffusers", "transformers", "yaml", "numpy", "PIL", "safetensors", "accelerate"}
SOURCES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def imported_modules(source: str) -> list[str]:
    """Full names of all absolutely imported modules, wherever in the file (relative imports stay in the package)."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.append(node.module)
    return names


def allowed(package: str, name: str) -> bool:
    """Whether a file of `package` may import the module `name`."""
    top = name.partition(".")[0]
    if top in MAY_IMPORT:
        return top in MAY_IMPORT[package] and name != "eval"  # a bare `import eval` hides the builtin
    if top in {"tests", "conf", "notebooks"}:
        return False
    if top in ONLY_IN_EXPERIMENTS:
        return package == "experiments"
    if package == "scalecrafter":  # what `pip install scalecrafter` brings
        return top in LIBRARY_DEPENDENCIES or top in sys.stdlib_module_names
    return True


def violations(package: str, source: str) -> list[str]:
    """What `source`, a file of `package`, imports against the rule."""
    return [name for name in imported_modules(source) if not allowed(package, name)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_rule(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert violations(package, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("eval", "import scalecrafter"),
        ("scalecrafter", "def f():\n    from baselines.direct import Direct"),
        ("scalecrafter", "import scipy.linalg"),
        ("baselines", "from omegaconf import OmegaConf"),
        ("baselines", "from eval.kid import features_to_kid"),
        ("experiments", "import eval"),
        ("experiments", "from tests.helpers import tiny"),
    ],
)
def test_rule_catches_a_violation(package: str, source: str) -> None:
    assert len(violations(package, source)) == 1


def test_rule_allows_what_it_should() -> None:
    assert violations("experiments", "import wandb\nfrom eval.kid import features_to_kid") == []
    assert violations("scalecrafter", "import math\nimport torch\nfrom . import schedule") == []
