"""W&B is a mirror: what is logged, and that no failure of it touches a run."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
from wandb.sdk.launch.sweeps import utils as sweeps
from wandb.util import get_core_path

from experiments import report, reproduce, table
from experiments.results.tracking import Tracker, tracked
from experiments.scoring.runs import complete_run, score_run
from experiments.setup.compose import compose_config
from experiments.setup.runs import build_run
from tests.tiny import tiny_overrides

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ["metrics.crops=null", "logger=wandb"]


@pytest.fixture
def tiny(pipe_folder, tmp_path, monkeypatch):
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-home"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no key of whoever runs the tests
    monkeypatch.setattr(sys, "argv", ["test"])
    return [*tiny_overrides(pipe_folder, tmp_path), *OPTIONS]


def direct_run(overrides):
    return build_run(compose_config([*overrides, "method=direct"]))


@pytest.fixture(scope="module")
def complete(pipe_folder, tmp_path_factory):
    """Runs of `tiny` with the one of `direct_run`, complete and not logged."""
    run = direct_run([*tiny_overrides(pipe_folder, tmp_path_factory.mktemp("complete")), *OPTIONS[:1]])
    complete_run(run)
    return run.runs


@pytest.fixture
def again(tiny, complete, tmp_path):
    """`tiny`, with its run there already."""
    shutil.copytree(complete, tmp_path / "runs")
    return tiny


def records(file: Path) -> list[dict]:
    """What W&B's own reader finds in an offline run: `wandb leet inspect`, without importing all of W&B each time."""
    reader = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
    command = [*reader, "--run-file", str(file), str(file.parent)]
    found = subprocess.run(command, check=True, capture_output=True).stdout
    return [json.loads(line) for line in found.splitlines()]


def finish(run):
    """As `experiments.run` does."""
    with tracked(run) as tracker:
        scores = complete_run(run, tracker.progress)
        tracker.send(scores)
    return scores


def offline_runs(run) -> list[Path]:
    return sorted(run.runs.glob(".wandb/wandb/offline-run-*/*.wandb"))


def logged(run) -> list[list[dict]]:
    """The records of each offline run so far."""
    return [records(file) for file in offline_runs(run)]


def identity_of(run_records: list[dict]) -> dict:
    return next(record["run"] for record in run_records if "run" in record)


def exit_code(run_records: list[dict]) -> int:
    """W&B leaves out a zero."""
    (ended,) = [record["exit"] for record in run_records if "exit" in record]
    return ended.get("exit_code", 0)


def test_without_a_key_a_run_is_logged_offline(tiny):
    run = direct_run([*tiny, "batch_size=2"])
    finish(run)
    (found,) = logged(run)
    text = json.dumps(found)
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert "folder@x4" in text
    for key in ("fid_r", "fid_b", "repetition"):
        assert key in text
        assert repr(metrics[key])[:8] in text
    assert "images_done" in text
    assert f"manifest-{run.folder.name}" in text
    assert exit_code(found) == 0
    assert len(list(run.runs.glob(".wandb/wandb/offline-run-*/files/media/images/*"))) == 4


def test_the_id_covers_the_images_and_how_they_are_scored(again):
    """An ablation on fewer prompts shares images with the table, and does not overwrite its scores."""
    changes = ([], ["prompts.limit=3"], ["metrics.reference_seed=3"], ["sampler.steps=3"], ["logger.project=other"])
    keys = [Tracker(direct_run([*again, *change])).key for change in changes]
    assert len(set(keys)) == 4
    assert keys[0] == keys[-1]
    finish(direct_run(again))
    finish(direct_run([*again, "prompts.limit=3"]))
    assert {identity_of(each)["run_id"] for each in logged(direct_run(again))} == set(keys[:2])


def test_nothing_is_sent_twice(again):
    run = direct_run(again)
    scores = finish(run)
    finish(run)
    with tracked(run) as tracker:
        tracker.send(score_run(run))
    assert len(logged(run)) == 1
    with tracked(run) as tracker:
        tracker.send(scores | {"fid_r": 123.25})
    first, second = logged(run)
    assert identity_of(first)["run_id"] == identity_of(second)["run_id"]
    assert "123.25" in json.dumps(second)
    assert len(list(run.runs.glob(".wandb/wandb/offline-run-*/files/media/images/*"))) == 4  # not again


@pytest.mark.parametrize("error", [ValueError("no\nroom"), KeyboardInterrupt("no room")])
def test_a_failed_run_appears_and_ends(again, error):
    run = direct_run(again)
    with pytest.raises(type(error)), tracked(run):
        raise error
    (found,) = logged(run)
    assert f"{type(error).__name__}: no room" in json.dumps(found)
    assert exit_code(found) == 1
    assert wandb.run is None
    finish(run)
    assert [exit_code(each) for each in logged(run)] == [1, 0]


def test_shards_have_runs_of_their_own_beside_that_of_the_whole(tiny):
    for shard in ("0/2", "1/2"):
        finish_or_not = direct_run([*tiny, f"shard={shard}"])
        with tracked(finish_or_not) as tracker:
            scores = complete_run(finish_or_not, tracker.progress)
            if scores is not None:
                tracker.send(scores)
    found = [identity_of(each) for each in logged(direct_run(tiny))]
    assert sorted(each["job_type"] for each in found) == ["run", "shard", "shard"]
    assert len({each["run_id"] for each in found}) == 3
    assert Tracker(direct_run(tiny)).key in {each["run_id"] for each in found}


def test_the_sweep_file_is_accepted_by_wandb_and_makes_command_lines_of_runs():
    """Read and expanded by W&B's own functions, as its agent does, and composed as experiments.run does."""
    config = sweeps.load_sweep_config(str(ROOT / "experiments/sweep.yaml"))
    assert (ROOT / config["program"]).is_file()
    values = {
        name: [spec["value"]] if "value" in spec else spec["values"] for name, spec in config["parameters"].items()
    }
    composed = []
    for chosen in itertools.product(*values.values()):
        args = {name: {"value": value} for name, value in zip(values, chosen, strict=True)}
        known = sweeps.create_sweep_command_args({"args": args}) | {"interpreter": ["python"], "env": ["env"]}
        line = [
            part
            for item in sweeps.create_sweep_command(list(config["command"]))
            for part in (known[item[2:-1]] if item.startswith("${") else [item])
        ]
        assert line[:4] == ["env", "python", "-m", "experiments.run"]
        composed.append(build_run(compose_config(line[4:])))
    assert len({run.digest for run in composed}) == len(composed) == 9
    assert {run.logger["name"] for run in composed} == {"wandb"}


def test_an_experiment_groups_its_runs_and_adds_its_table_and_its_report(again):
    """The table under an id of its own, with charts and galleries; nothing of it twice."""
    options = ["experiment=table1", *again, "resolution=x4", "method=direct"]
    reproduce.main(options)
    folder, found = direct_run(again).runs, logged(direct_run(again))
    runs = [next(record["run"] for record in each if "run" in record) for each in found]
    assert [run["run_group"] for run in runs] == ["table1"] * 2
    assert sorted(run["job_type"] for run in runs) == ["aggregate", "run"]
    assert len({run["run_id"] for run in runs}) == 2
    media = {re.split(r"_\d+_", path.name)[0] for path in folder.glob(".wandb/wandb/offline-run-*/files/media/**/*.*")}
    assert {"table1", "gallery_x4", "zoom_x4", "table1_cost", "table1_repetition", "images"} <= media
    report.main(again)
    before = len(offline_runs(direct_run(again)))
    text = json.dumps(logged(direct_run(again)))
    for name in ("report.html", "table1.csv", "table1.tex", "manifest.jsonl"):
        assert name in text
    table.main(options)
    report.main(again)
    assert len(offline_runs(direct_run(again))) == before


def test_a_failure_is_a_warning_and_the_run_is_complete(tiny, monkeypatch):
    def broken(*args, **kwargs):
        raise OSError("no space\nleft")

    monkeypatch.setattr(wandb, "init", broken)
    run = direct_run(tiny)
    with pytest.warns(UserWarning, match="not logged to W&B: no space left; the files are complete") as caught:
        finish(run)
    assert len(caught) == 1
    assert run.scores_file.is_file()


def test_without_the_logger_nothing_is_imported_or_written(tiny, monkeypatch):
    monkeypatch.setattr(wandb, "init", None)
    run = direct_run([*tiny, "logger=none"])
    finish(run)
    assert not list(run.runs.glob(".wandb"))


def test_the_logger_is_not_part_of_the_identity(tiny):
    assert direct_run(tiny).digest == direct_run([*tiny, "logger=none"]).digest
