"""Base samples as jobs of their own: which ones, and that they come first where jobs run side by side."""

import json
import subprocess
import sys

import pytest

from experiments.sampling.base_jobs import base_jobs
from experiments.sampling.generate import generate_run, is_complete
from experiments.setup.compose import compose_config
from experiments.setup.grid import read_grid
from experiments.setup.runs import base_run, build_run
from tests.commands import ROOT
from tests.tiny import tiny_overrides

PARALLEL = "hydra/launcher=local_cpu"


@pytest.fixture
def tiny(pipe_folder, tmp_path):
    return [*tiny_overrides(pipe_folder, tmp_path), "metrics.crops=null", "resolution=x4"]


def bases(line):
    """The runs that a command line of `base_jobs` generates."""
    return [base_run(build_run(compose_config(row.overrides))) for row in read_grid(line).rows]


def test_one_job_for_all_rows_that_share_base_samples(tiny):
    grid = read_grid([*tiny, "method=direct,upscale", "seed=0,1"])
    found = [bases(line) for line in base_jobs(grid)]
    assert [[base.seed for base in line] for line in found] == [[0], [1]]
    assert {base.folder.name.rsplit("-", 1)[0] for line in found for base in line} == {"folder-direct-32x32"}


def test_finished_base_samples_need_no_job(tiny):
    grid = read_grid([*tiny, "method=direct,upscale"])
    (line,) = base_jobs(grid)
    generate_run(bases(line)[0])
    assert base_jobs(grid) == []
    assert len(base_jobs(read_grid([*tiny, "method=direct,upscale", "prompts.limit=5"]))) == 1


def test_what_is_not_scored_or_cannot_be_built_needs_none(tiny):
    assert base_jobs(read_grid([*tiny, "method=direct,upscale", "metrics=none"])) == []
    assert base_jobs(read_grid([*tiny, "method=direct,upscale", "sampler.steps=0"])) == []


def test_shards_of_the_rows_are_shards_of_the_base_samples(tiny):
    (line,) = base_jobs(read_grid([*tiny, "method=direct,upscale", "shard=0/2,1/2"]))
    assert [str(base.shard) for base in bases(line)] == ["0-of-2", "1-of-2"]


def test_the_largest_number_of_prompts_is_generated(tiny):
    (line,) = base_jobs(read_grid([*tiny, "method=direct", "prompts.limit=3,7,5"]))
    assert [len(base.prompts) for base in bases(line)] == [7]


def test_the_options_of_the_launcher_are_kept(tiny):
    grid = read_grid([*tiny, PARALLEL, "hydra.launcher.n_jobs=1", "method=direct,upscale"])
    assert grid.side_by_side
    assert not read_grid([*tiny, "method=direct,upscale"]).side_by_side
    assert {PARALLEL, "hydra.launcher.n_jobs=1"} <= set(base_jobs(grid)[0])


@pytest.mark.slow
def test_jobs_side_by_side_find_their_base_samples_complete(tiny, tmp_path):
    line = ["-m", *tiny, PARALLEL, "method=direct,upscale"]
    command = [sys.executable, "-m", "experiments.run", *line]  # joblib's processes do not start from a forked one
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    launches = sorted((tmp_path / "runs/.jobs").iterdir())
    outcomes = [[json.loads(path.read_text()) for path in sorted(each.glob("*/outcome.json"))] for each in launches]
    assert [len(each) for each in outcomes] == [1, 2]
    assert not any(outcome["error"] for each in outcomes for outcome in each)
    base = base_run(build_run(compose_config([*tiny, "method=direct"])))
    assert is_complete(base)
    first_row = min(path.stat().st_mtime_ns for path in launches[1].glob("*/.hydra/config.yaml"))
    assert (base.folder / "manifest.jsonl").stat().st_mtime_ns < first_row
    assert len(list((tmp_path / "runs").glob("*/metrics.json"))) == 2
