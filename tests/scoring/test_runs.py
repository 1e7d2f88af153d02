"""Scoring runs: what metrics.json holds, and that scores of other prompts or other metrics are kept beside it."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments.results.reading import RunRow, read_scores
from experiments.results.score_table import collect
from experiments.sampling.generate import generate_run
from experiments.sampling.manifest import save_image
from experiments.scenes.scene_counter import SceneCounter
from experiments.scenes.scene_features import DetailFeatures, SceneFeatures
from experiments.scoring import runs
from experiments.scoring.runs import check_scorable, complete_run, costs_per_image, score_run
from experiments.setup.architecture import open_architecture
from experiments.setup.compose import compose_config
from experiments.setup.runs import base_run, build_run
from tests.tiny import tiny_overrides


@pytest.fixture
def tiny(pipe_folder, tmp_path):
    return tiny_overrides(pipe_folder, tmp_path)


def run_of(overrides):
    return build_run(compose_config(overrides))


@pytest.fixture(scope="module")
def made(pipe_folder, tmp_path_factory):
    """The runs of a scored run and its base samples; not to be changed."""
    run = run_of([*tiny_overrides(pipe_folder, tmp_path_factory.mktemp("made")), "method=direct"])
    complete_run(run)
    return run.runs


@pytest.fixture
def scored(made, tiny, tmp_path):
    """A copy of that run."""
    shutil.copytree(made, tmp_path / "runs")
    return run_of([*tiny, "method=direct"])


def test_a_completed_run_has_all_scores(tiny):
    run = run_of(tiny)
    assert complete_run(run) == json.loads((run.folder / "metrics.json").read_text())
    metrics = read_scores(run.scores_file)
    assert metrics["n"] == 4
    for key in ("fid_r", "kid_r", "fid_b", "kid_b"):
        assert np.isfinite(metrics[key])
        assert metrics[f"{key}_se"] >= 0
    assert metrics["repetition"] >= 0
    assert metrics["seconds_per_image"] > 0
    protocol = metrics["protocol"]
    assert protocol["reference"]["n"] == 6
    assert protocol["extractor_sha256"] == protocol["accuracy_sha256"] == SceneFeatures().digest
    assert protocol["crop_extractor_sha256"] == DetailFeatures().digest
    assert protocol["repetition_sha256"] == SceneCounter().digest


def test_u_net_evaluations_are_counted(tiny):
    """Two steps on a guidance pair: at four times the area each counts four; four windows as many; Lanczos none."""
    expected = {"direct": 8, "scalecrafter": 8, "multidiffusion": 8, "upscale": 2}
    for method, evaluations in expected.items():
        folder = generate_run(run_of([*tiny, f"method={method}"]))
        assert costs_per_image(folder)["unet_evaluations_per_image"] == evaluations


def test_scores_are_kept_for_every_number_of_prompts_and_way_of_scoring(tiny):
    """With three prompts and with four, with crops and without; metrics.json is the last."""
    tiny = [*tiny, "method=direct"]
    kinds = [[*tiny, "prompts.limit=4"], [*tiny, "prompts.limit=3"], [*tiny, "prompts.limit=3", "metrics.crops=null"]]
    runs = [run_of(overrides) for overrides in kinds]
    for run in runs:
        complete_run(run)
    assert len({run.folder for run in runs}) == 1
    scores = [read_scores(run.scores_file) for run in runs]
    assert [(found["n"], "pfid_r" in found) for found in scores] == [(4, True), (3, True), (3, False)]
    assert json.loads((runs[0].folder / "metrics.json").read_text()) == scores[-1]


def test_base_samples_use_the_models_own_sampling(tiny):
    """Whatever the row samples with: one base run for all rows, so that they share a reference."""
    runs = [run_of([*tiny, *options]) for options in ([], ["sampler.eta=1"], ["sampler.guidance_scale=2", "seed=0"])]
    assert len({run.folder for run in runs}) == 3
    assert len({base_run(run).folder for run in runs}) == 1
    base = base_run(runs[0])
    assert (base.height, base.width, base.method_name) == (32, 32, "direct")
    assert base.digest == run_of([*tiny, "method=direct", "resolution=x1", "sampler.eta=0"]).digest
    assert base_run(run_of([*tiny, "seed=1"])).folder != base.folder


def test_missing_images_are_named(tiny):
    with pytest.raises(ValueError, match="lacks 4 images: generate them with python -m experiments.run"):
        score_run(run_of([*tiny, "method=direct"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("prompts.limit=2", "2 prompts are too few for a score"),
        ("metrics.repetition=boxes", "metrics.repetition is null, scenes or windows"),
        ("metrics.also=[fd]", "unknown metric 'fd'"),
        ("metrics.reference=/nowhere", "/nowhere"),
        ("metrics.reference_minimum=7", "has 6 images for whole images: a score needs at least 7"),
        ("metrics.reference=/nowhere.npz", "no reference at /nowhere.npz"),
        ("metrics.reference='cleanfid:nothing'", "clean-fid has no statistics 'nothing'"),
        ("metrics.crops=ten", "unknown crops 'ten'"),
    ],
)
def test_runs_that_cannot_be_scored_are_refused_first(tiny, change, message):
    run = build_run(compose_config([*tiny, change]), open_architecture)
    with pytest.raises((ValueError, OSError), match=message):
        check_scorable(run)
    assert not run.folder.exists()


def test_the_protocol_identifies_everything_that_was_compared(tiny):
    """Reference contents, prompts, base run, weights and precision; rows that differ in one are refused by name."""
    kinds = {
        "reference": ["metrics.reference_seed=3"],
        "prompts_sha256": ["prompts.seed=9"],
        "base_run": ["seed=5"],
        "dtype": ["model.dtype=float16"],
        "crops": ["metrics.crops='16:2'"],
    }
    tiny = [*tiny, "model.dtype=float32", "prompts.limit=3"]
    first = run_of([*tiny, "method=direct"])
    complete_run(first)
    for key, change in kinds.items():
        other = run_of([*tiny, "method=upscale", *change])
        complete_run(other)
        with pytest.raises(ValueError, match=f"cannot share a table: .*{key}"):
            collect([RunRow(first), RunRow(other)])


def test_crops_leave_the_reference_of_whole_images_alone(tiny, tmp_path):
    """Small real images are left out for crops only, each reference with its own count."""
    (tmp_path / "real").mkdir()
    for i, side in enumerate([64] * 6 + [48] * 4):
        pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"real/{i}.png")
    options = [*tiny, "method=direct", f"metrics.reference={tmp_path / 'real'}"]
    with_crops, without = (
        complete_run(run_of([*options, change])) for change in ("metrics.crops='32:2'", "metrics.crops=null")
    )
    assert with_crops["fid_r"] == without["fid_r"]
    assert with_crops["protocol"]["reference"]["n"] == 10
    assert (with_crops["protocol"]["crop_reference"]["n"], with_crops["protocol"]["crop_reference"]["left_out"]) == (
        6,
        4,
    )


def counted(monkeypatch, owner, name):
    """The calls of a function from now on."""
    calls, original = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: calls.append(args) or original(*args, **kwargs))
    return calls


def test_scores_that_exist_are_not_made_again(scored, monkeypatch):
    run, scores = scored, json.loads(scored.scores_file.read_text())
    before = run.scores_file.stat().st_mtime_ns
    calls = counted(monkeypatch, runs, "compare_images")
    assert complete_run(run) == scores
    assert not calls
    assert score_run(run) == scores  # as python -m experiments.score
    assert len(calls) == 1
    assert run.scores_file.stat().st_mtime_ns > before


def change_an_image(run, folder):
    """As if it had been generated again on another machine."""
    line = json.loads((folder / "manifest.jsonl").read_text().splitlines()[0])
    (folder / line["file"]).unlink()
    lines = (folder / "manifest.jsonl").read_text().splitlines(True)
    (folder / "manifest.jsonl").write_text("".join(lines[1:]))
    other = np.full((line["height"], line["width"], 3), 99, np.uint8)
    save_image(folder, other, prompt_id=line["id"], prompt=line["prompt"], seed=line["seed"])


def change_a_digit(path):
    text = path.read_text()
    place = next(i for i in range(text.index('"fid_r"'), len(text)) if text[i].isdecimal())
    path.write_text(text[:place] + str(9 - int(text[place])) + text[place + 1 :])


@pytest.mark.parametrize(
    "change",
    [
        lambda run: change_an_image(run, run.folder),
        lambda run: change_an_image(run, base_run(run).folder),
        lambda run: run.scores_file.unlink(),
        lambda run: run.scores_file.write_text("[1]"),
        lambda run: run.scores_file.write_bytes(run.scores_file.read_bytes()[:100]),
        lambda run: change_a_digit(run.scores_file),
    ],
    ids=["image", "base image", "gone", "nonsense", "torn", "digit"],
)
def test_scores_are_made_again_when_something_has_changed(scored, monkeypatch, change):
    run = scored
    change(run)
    calls = counted(monkeypatch, runs, "compare_images")
    scores = complete_run(run)
    assert len(calls) == 1
    assert scores == json.loads(run.scores_file.read_text()) == score_run(run)


def test_scores_are_made_again_under_another_protocol(tiny, tmp_path, monkeypatch):
    """Of the same configuration: a folder of real images gets another one."""
    (tmp_path / "real").mkdir()
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"real/{i}.png")
    run = run_of([*tiny, "method=direct", f"metrics.reference={tmp_path / 'real'}", "metrics.crops=null"])
    first = complete_run(run)
    shutil.copy(tmp_path / "real/0.png", tmp_path / "real/9.png")
    assert complete_run(run)["fid_r"] != first["fid_r"]


def test_a_damaged_copy_of_the_scores_is_written_again(scored):
    run = scored
    good = (run.folder / "metrics.json").read_bytes()
    change_a_digit(run.folder / "metrics.json")
    complete_run(run)
    assert (run.folder / "metrics.json").read_bytes() == good
