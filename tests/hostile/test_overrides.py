"""Overrides, whatever they hold: a run, or one line; classes of this project alone, and no file anywhere else."""

import os
import sys
from copy import deepcopy
from random import Random

import pytest
from omegaconf import OmegaConf

from experiments.setup.architecture import open_architecture
from experiments.setup.compose import check_hydra, compose_config, plain_values
from experiments.setup.grid import read_grid
from experiments.setup.launch import launch
from experiments.setup.runs import build_run
from experiments.setup.schema import Config
from tests.hostile.inputs import PIECES, THOROUGH, error_of, text, writes_only
from tests.tiny import tiny_overrides

FEWER = [20, pytest.param(THOROUGH, marks=pytest.mark.slow)]  # Hydra takes a tenth of a second for each
OURS = "baselines.direct.Direct"
TARGETS = [
    *("os.system", "subprocess.Popen", "builtins.eval", "builtins.exec", "pathlib.Path", "torch.load"),
    *("torch.hub.load", "baselines.method.os.system", "baselines.lpips.torch.hub.load", "baselines.direct.Direct.go"),
    *(
        "experiments.run.main",
        "experiments.setup.launch.Path",
        "experiments.scenes.WEIGHTS.unlink",
        "tests.tiny.generate",
    ),
    *("hydra.utils.get_method", "hydra.utils.instantiate", "functools.partial", "..Evil", "baselines."),
    *("", "baselines", "baselines.nothing.Nothing", "baselines.upscale.torch.hub.Evil", "${oc.env:HOME}"),
    *("[1]", "{a: 1}", "3"),
]
PLACES = ["method.object", "method.object.x", "model.distance", "model.settings", "experiment.plot", "seed"]
HYDRA = [
    "+hydra.callbacks.evil._target_={}",
    "hydra.launcher._target_={}",
    "hydra.sweeper._target_={}",
    "+hydra.job_logging.handlers.evil={{class: {}, args: [touch]}}",
    "hydra.job_logging.handlers.console.class={}",
]


@pytest.fixture
def tiny(pipe_folder, tmp_path):
    return tiny_overrides(pipe_folder, tmp_path)


@pytest.fixture
def resolve(tiny, tmp_path, monkeypatch):
    """What every command does before it samples, in one go."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(overrides):
        for row in read_grid([*tiny, *overrides]).rows[:2]:
            run = build_run(compose_config(row.overrides), open_architecture)
            assert run.folder.parent == run.runs

    def watched(overrides):
        with writes_only(tmp_path / "runs"):
            run(overrides)

    return watched


@pytest.fixture(scope="module")
def composed(pipe_folder):
    """A configuration without types."""
    return OmegaConf.create(OmegaConf.to_container(compose_config(tiny_overrides(pipe_folder, pipe_folder))))


def with_value(config, key, value):
    """A copy with another value of a key, whatever its type."""
    changed = deepcopy(config)
    OmegaConf.update(changed, key, value, force_add=True, merge=False)
    return changed


@pytest.mark.parametrize(("turn", "place"), list(enumerate(PLACES)))
def test_only_classes_of_this_project_are_instantiated(composed, turn, place):
    """In each way at the first place; every fourth one, in one of the ways in turn, at the others."""
    for index, target in enumerate(TARGETS):
        ways = [{"_target_": target}, [{"a": {"_target_": target}}], {"_target_": OURS, "b": {"_target_": target}}]
        for value in ways if turn == 0 else [ways[index % 3]] if index % 4 == turn % 4 else []:
            with pytest.raises(ValueError, match="_target_ names a class in a module of baselines|interpolation"):
                plain_values(with_value(composed, place, value))


def test_a_command_line_cannot_name_others(tiny):
    for line in ("method.object={_target_: os.system}", "+method.object.x=[{_target_: builtins.eval}]"):
        with pytest.raises(ValueError, match="_target_ names a class in a module of baselines"):
            plain_values(compose_config([*tiny, line]))


def test_the_classes_of_this_project_may_be_named(resolve):
    resolve(["method=direct", "method.object._target_=baselines.one_pass.deep_shrink.DeepShrink"])


@pytest.mark.parametrize("place", HYDRA)
def test_only_hydra_and_its_plugins_are_launched(tiny, place):
    with pytest.raises(ValueError, match="class of Hydra or its plugins|of Python's logging"):
        read_grid([*tiny, place.format("os.system")])


@pytest.mark.parametrize(
    "target", ["os.system", "subprocess.Popen", "logging.config.dictConfig", "${x}", "", 3, ["a"]]
)
def test_logs_have_handlers_and_formatters_of_python(target):
    for kind in ("job_logging", "hydra_logging"):
        for key in ("()", "class"):
            with pytest.raises(ValueError, match="of Python's logging"):
                check_hydra(OmegaConf.create({kind: {"handlers": {"evil": {key: target}}}}))


@pytest.mark.parametrize("launcher", ["local_cpu", "slurm_gpu"])
def test_launchers_are_found(tiny, launcher):
    assert read_grid([*tiny, f"hydra/launcher={launcher}"]).rows


NAMES = ["../../up", "/etc/x", "a/b", "..", ".", "", "=1+1", "@SUM(A1)", "-x", "<b>", "$x$", "a|b", 300 * "a"]
NAMES += [piece for piece in PIECES if not piece.isalnum() and "${" not in piece]


@pytest.mark.parametrize(("turn", "node"), list(enumerate(["model", "method", "resolution", "experiment"])))
def test_names_lead_to_no_other_folder(composed, resolve, turn, node):
    """Each name in one of the nodes, in turn."""
    for name in NAMES[turn::4]:
        with pytest.raises(ValueError, match=f"{node}.name is 1 to 100 letters|interpolation"):
            plain_values(with_value(composed, f"{node}.name", name))
    with pytest.raises(ValueError, match=f"{node}.name is 1 to 100 letters"):
        resolve([f"{node}.name='../../up'"])
    plain_values(with_value(composed, f"{node}.name", "My-own_1.5"))


def keys() -> list[str]:
    """Of the whole configuration, nested ones with dots."""
    found, nodes = [], [("", OmegaConf.structured(Config))]
    while nodes:
        prefix, node = nodes.pop()
        for key in node:
            inner = OmegaConf.is_missing(node, key) or node._get_node(key)
            if OmegaConf.is_config(inner) and len(inner):
                nodes.append((f"{prefix}{key}.", inner))
            found.append(f"{prefix}{key}")
    return [key for key in found if key not in ("paths.runs", "paths.results")]


KEYS = keys()
GROUPS = ["model", "method", "resolution", "sampler", "prompts", "metrics", "logger", "experiment", "hydra/launcher"]
VALUES = [
    *("null", "???", "-1", "0", "1e999", "-.inf", ".nan", "1" + "0" * 400, "true", "[]", "{}", "[1,[2]]"),
    *("{a: {b: 1}}",),
    *("${oc.env:HOME}", "${seed}", "${nothing}", "${hydra.run.dir}", "${project:a}", "${oc.decode:[}", "${", "$"),
    *("a=b", "a,b", "1,2", "range(3)", "range(3,0)", "range(0.0,1.0)", "choice(a,b)", "interval(0,1)", "glob(*)"),
    *("shuffle(1,2)", "int(a)", "str(1)", "tag(a,b)", "sort(3,1)", "extend_list(1)", "'", '"', "\\", "@", "scenes"),
    *("paper", "[" * 300, "{_target_: os.system}", "x4", "direct", "../../up", "0x10", "1_000", "0.5", "7", "auto"),
]


def random_override(random: Random) -> str:
    key = random.choice([*KEYS, *KEYS, *GROUPS, "+new", "hydra.run.dir", text(random, long=False)])
    prefix = random.choice(("", "", "", "", "+", "++", "~"))
    value = random.choice((*VALUES, f"'{random.choice(PIECES)}'", text(random)))
    return f"{prefix}{key}={value}" if random.random() < 0.97 else f"{prefix}{key}"


@pytest.mark.parametrize("count", FEWER)
def test_random_overrides(resolve, count):
    random = Random(23)
    for _ in range(count):
        overrides = [random_override(random) for _ in range(random.choice((1, 1, 2, 3)))]
        error_of(lambda overrides=overrides: resolve(overrides))
    assert not os.path.exists("up")


def test_folders_that_cannot_be_written_are_one_line(tmp_path, capsys, monkeypatch):
    """As on a disk that is full or read-only: Hydra's own logs are the first that need room."""
    monkeypatch.setattr(sys, "argv", ["test"])
    (tmp_path / "file").write_text("in the way")
    for line in (["method=direct"], ["-m", "method=direct,upscale"]):
        with pytest.raises(OSError, match="file"):
            launch(print, [*line, f"paths.runs={tmp_path / 'file'}/runs"])
    assert "Traceback" not in capsys.readouterr().err
