"""Truncated, changed and missing files of every kind: the same command makes them good, or refuses in one line that
says how to repair them.
"""

import os
from random import Random

import pytest

from experiments.scoring.runs import complete_run
from experiments.setup.compose import compose_config
from experiments.setup.grid import read_grid
from experiments.setup.runs import build_run
from experiments.verify.__main__ import repair_run
from tests.faults.harness import outcome
from tests.hostile.inputs import error_of

KINDS = {  # what an experiment leaves behind
    "image": "runs/*/images/000001.png",
    "base image": "runs/*-direct-*/images/000002.png",
    "manifest": "runs/*/manifest.jsonl",
    "costs": "runs/*/costs.jsonl",
    "configuration": "runs/*/config.yaml",
    "environment": "runs/*/environment.json",
    "features": "runs/*-scalecrafter-*/features/*.npz",
    "base features": "runs/*-direct-*/features/*.npz",
    "index": "runs/*/features/index.json",
    "scores": "runs/*/scores/*.json",
    "copy of the scores": "runs/*/metrics.json",
    "reference features": "runs/.cache/features/*.npz",
    "reference index": "runs/.cache/features/index.json",
    "resolved configuration": "runs/*/.hydra/config.yaml",
    "outcome": "runs/.jobs/*/*/outcome.json",
    "lock": "runs/*/.lock",
    "table": "results/ablate_tau.csv",
    "Markdown table": "results/ablate_tau.md",
    "LaTeX table": "results/ablate_tau.tex",
    "drawn table": "results/ablate_tau.png",
    "gallery": "results/ablate_tau_x4.png",
}
SEEDS = 1  # of every kind and damage, in the long suite


def truncate(path, random):
    path.write_bytes(path.read_bytes()[: random.randrange(max(1, path.stat().st_size))])


def flip(path, random):
    content = bytearray(path.read_bytes() or b"x")
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def remove(path, random):
    path.unlink()


def replace_by_a_folder(path, random):
    path.unlink()
    path.mkdir()


ACTIONS = [truncate, flip, remove]
CASES = [(kind, action, seed) for kind in KINDS for action in ACTIONS for seed in range(SEEDS)]
QUICK = [("manifest", flip, 0), ("image", truncate, 0), ("features", truncate, 0), ("scores", flip, 0)]


def damage(folder, kind, action, random):
    """Of one file of that kind."""
    path = random.choice(sorted(folder.glob(KINDS[kind])))
    action(path, random)
    return path


@pytest.mark.parametrize(("kind", "action", "seed"), QUICK)
def test_runs_are_made_good(whole, expected, tmp_path, kind, action, seed):
    """By the jobs alone, without tables."""
    experiment = whole.copy(tmp_path)
    path = damage(tmp_path, kind, action, Random(seed))
    before = path.read_bytes()
    if kind == "features":  # they are read where scores have to be made
        for scores in [*tmp_path.glob("runs/*/scores/*.json"), *tmp_path.glob("runs/*/metrics.json")]:
            scores.unlink()
    for row in read_grid(experiment.overrides).rows:
        complete_run(build_run(compose_config(row.overrides)))
    assert path.read_bytes() != before
    assert outcome(experiment) == expected


@pytest.mark.faults
@pytest.mark.parametrize(("kind", "action", "seed"), CASES)
def test_every_kind_of_file(whole, expected, tmp_path, kind, action, seed, record_property):
    """A changed configuration is refused, for it may be that of another run; after a repair the command goes on."""
    experiment, random = whole.copy(tmp_path), Random(f"{kind} {seed}")
    path = damage(tmp_path, kind, action, random)
    error = error_of(experiment.resume)
    if error is not None:
        assert kind == "configuration"
        assert f"python -m experiments.verify {path.parent} --repair" in str(error)
        repair_run(path.parent)
        experiment.resume()
    record_property("outcome", "made good" if error is None else "refused, repaired, made good")
    assert outcome(experiment) == expected
    if kind == "environment":
        assert path.read_bytes().startswith(b"{") or action is flip


FOLDERS = ["image", "manifest", "costs", "features", "index", "scores", "copy of the scores", "environment"]


@pytest.mark.faults
@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_in_the_place_of_a_file(whole, expected, tmp_path, kind):
    """Made good, or named in one line; nothing that is in the way is removed."""
    experiment = whole.copy(tmp_path)
    path = damage(tmp_path, kind, replace_by_a_folder, Random(kind))
    error = error_of(experiment.resume)
    if error is not None:
        assert path.name in str(error)
        path.rmdir()
        experiment.resume()
    assert outcome(experiment) == expected


PLACES = [
    "runs",
    "results",
    "runs/*-scalecrafter-*/images",
    "runs/*-scalecrafter-*/features",
    "runs/*/scores",
    "runs/.cache",
]


NEEDLESS = ["runs/*-scalecrafter-*/features"]  # of a run that is scored


@pytest.mark.faults
@pytest.mark.parametrize("place", PLACES)
def test_a_file_in_the_place_of_a_folder(whole, expected, tmp_path, place):
    """As a folder that cannot be written, for root too: one line that names it."""
    experiment = whole.copy(tmp_path)
    path = sorted(tmp_path.glob(place))[0]
    away = tmp_path / "away"
    path.rename(away)
    path.write_text("in the way")
    error = error_of(experiment.resume)
    assert path.name in str(error) if place not in NEEDLESS else error is None
    path.unlink()
    away.rename(path)
    experiment.resume()
    assert outcome(experiment) == expected


@pytest.mark.faults
@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
@pytest.mark.parametrize("place", PLACES)
def test_removed_permissions(whole, expected, tmp_path, place):
    experiment = whole.copy(tmp_path)
    path = sorted(tmp_path.glob(place))[0]
    for image in tmp_path.glob("runs/*/images/000001.png"):
        image.unlink()
    path.chmod(0o000)
    try:
        with pytest.raises((ValueError, OSError), match=path.name):
            experiment.resume()
    finally:
        path.chmod(0o755)
    experiment.resume()
    assert outcome(experiment) == expected
