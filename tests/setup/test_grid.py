"""Grids: the rows are those that Hydra's own sweeper would run, and the command line always wins."""

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from experiments.results.reading import read_description, run_rows
from experiments.setup.architecture import open_architecture
from experiments.setup.compose import compose_config
from experiments.setup.grid import named_experiment, read_grid
from experiments.setup.schema import CONF

NAMES = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
# Every row, or by default some where each of many methods is a configuration to be composed at each size.
SOME = {
    "paper": ["resolution=x4", "method=direct,multidiffusion"],
    "table1": ["resolution=x4", "method=direct,real"],
    "paper_1k": ["method=direct,scalecrafter"],
}
EXPERIMENTS = [pytest.param(name, SOME.get(name, []), id=name) for name in NAMES]
EXPERIMENTS = [each for each in EXPERIMENTS if not each.id.startswith("field")]
EXPERIMENTS += [
    pytest.param(name, [], id=f"{name}, every row", marks=pytest.mark.slow)
    for name in (*SOME, *(name for name in NAMES if name.startswith("field")))
]
LINES = [
    ["method=direct,upscale", "seed=range(3)", "prompts.limit=3"],
    ["experiment=ablate_tau", "scalecrafter.tau=5,7", "seed=1"],
    ["experiment=ablate_layers"],
    ["experiment=table1", "experiment.skip=[]"],
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_rows_are_those_of_hydras_sweeper(line):
    fixed = [part for part in line if "," not in part and "range" not in part]
    params = compose_config(fixed, with_hydra=True).hydra.sweeper.params or {}
    parsed = OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in params.items()] + line)
    (expected,) = BasicSweeper.split_arguments(parsed, None)
    assert [list(row.overrides) for row in read_grid(line).rows] == expected


@pytest.mark.parametrize(("experiment", "some"), EXPERIMENTS)
def test_every_experiment_varies_what_it_says(experiment, some, tmp_path):
    """Each row has an identity and a label of its own, and every value a plot needs; ablations expect one of them."""
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    line = [f"experiment={experiment}", "model=scenes", *some]
    if experiment.startswith("paper"):
        line += ["prompts=file", f"prompts.path={tmp_path / 'prompts.txt'}", "prompts.limit=null"]
    grid = read_grid(line)
    assert grid.name in (experiment, f"{experiment}_scenes")
    assert grid.multirun
    rows = run_rows(grid, open_architecture)
    assert len({(row.run.resolution, row.run.method_name, row.variant) for row in rows}) == len(rows) > 1
    if experiment.startswith("ablate_"):
        assert grid.plot is not None
        assert len({row.run.digest for row in rows}) == len(rows)
        assert all(row.variant for row in rows)
        expected = read_description(CONF / f"experiment/{experiment}.yaml").expected
        assert {*expected.items()} <= {(row.run.resolution, row.variant) for row in rows}


def test_the_command_line_replaces_values_of_the_experiment():
    rows = read_grid(["experiment=table1", "resolution=x4"]).rows
    assert {row.overrides[0] for row in rows} == {"resolution=x4"}
    assert len(rows) == 9
    one = read_grid(["experiment=ablate_tau", "resolution=x4", "scalecrafter.tau=20", "prompts.limit=5"])
    assert [row.variant for row in one.rows] == ["tau 20"]
    assert compose_config(one.rows[0].overrides).prompts.limit == 5
    assert compose_config(["prompts.limit=5", "experiment=ablate_tau"]).prompts.limit == 5
    assert compose_config(["experiment=paper", "prompts=scenes"]).prompts.source == "scenes"


def test_skipped_combinations_give_way_to_the_command_line():
    def methods(*overrides):
        rows = read_grid(["experiment=table1", *overrides]).rows
        return [row.overrides[1].removeprefix("method=") for row in rows if row.overrides[0] == "resolution=x16"]

    assert "syncdiffusion" not in methods()
    assert "syncdiffusion" not in methods("resolution=x16")
    assert methods("resolution=x16", "method=syncdiffusion") == ["syncdiffusion"]
    assert "syncdiffusion" in methods("experiment.skip=[]")


def paper_rows(*overrides):
    """(resolution, method, limit) of each row of the paper's comparison."""
    rows = read_grid(["experiment=paper", "model=sd15", *overrides]).rows
    found = [dict(line.split("=", 1) for line in row.overrides) for row in rows]
    return [(each["resolution"], each["method"], each["prompts.limit"]) for each in found]


def test_methods_by_windows_are_compared_where_they_can_be_afforded():
    """At 4 times the area on 1,000 prompts, where all methods are scored on these prompts."""
    rows = paper_rows()
    windows = {"multidiffusion", "syncdiffusion"}
    others = {"direct", "upscale", "attention_scaling", "scalecrafter"}
    assert {row for row in rows if row[1] in windows} == {("x4", method, "1k") for method in windows}
    assert {row[1] for row in rows if row[2] == "1k"} == windows | others
    full = {(resolution, method) for resolution in ("x4", "x6_25", "x8", "x16") for method in others}
    assert {row[:2] for row in rows if row[2] == "paper"} == full
    assert len(rows) == len(set(rows)) == 22
    assert paper_rows("resolution=x8", "method=multidiffusion") == [("x8", "multidiffusion", "paper")]
    assert len(paper_rows("prompts.limit=1000")) == 6 + 3 * 4
    for name in ("paper", "paper_1k"):
        config = compose_config([f"experiment={name}", "model=sd15"])
        assert config.multidiffusion.stride == 0.25
        assert config.experiment.name == f"{name}_sd15"
    assert config.prompts.limit == "1k"
    assert len(read_grid(["experiment=paper_1k"]).rows) == 6 + 3


def test_labels_name_values_and_group_options():
    layers = read_grid(["experiment=ablate_layers"])
    assert [row.variant for row in layers.rows] == [
        "dilation middle block",
        "dilation levels 3 to 4",
        "dilation as settings",
        "dilation levels 1 to 4",
    ]
    dilation = compose_config(layers.rows[0].overrides).scalecrafter.dilation
    assert dict(dilation) == {"mid_block": 2}
    assert compose_config(layers.rows[2].overrides).scalecrafter.dilation is None


def test_a_command_line_without_an_experiment_is_one_row():
    grid = read_grid(["method=direct"])
    assert [row.overrides for row in grid.rows] == [("method=direct",)]
    assert not grid.multirun
    assert named_experiment(["seed=1"]) == ["experiment=table1", "seed=1"]
    assert named_experiment(["experiment=paper"]) == ["experiment=paper"]


def test_sweeps_without_values_are_refused():
    with pytest.raises(ValueError, match="seed=interval"):
        read_grid(["seed=interval(0,1)"])
    with pytest.raises(ValueError, match="no viable alternative|mismatched|extraneous"):
        read_grid(["seed=[1"])


def test_keys_that_are_added_are_added_in_each_row():
    """As one of a launcher, which its schema does not have."""
    line = ["hydra/launcher=submitit_local", "+hydra.launcher.max_num_timeout=2", "++seed=3,4"]
    rows = [compose_config(row.overrides, with_hydra=True) for row in read_grid(line).rows]
    assert [(row.seed, row.hydra.launcher.max_num_timeout) for row in rows] == [(3, 2), (4, 2)]
