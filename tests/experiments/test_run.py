"""Run, score and table on a tiny real pipeline: files, resume, crashes, identity and errors."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.uncertainty import Estimate
from experiments.reproduce import reproduce
from experiments.results.score_table import among_the_best, collect, read_scores, require_same_protocol
from experiments.run import run_cell, single
from experiments.sampling import generate as draw_module
from experiments.sampling.generate import draw_cell
from experiments.sampling.manifest import read_records
from experiments.setup.config import CONF, build_cell, compose_config
from experiments.setup.grid import Row, override, read_experiment
from tests.tiny import tiny_overrides

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tiny(pipe_folder, tmp_path):
    return tiny_overrides(pipe_folder, tmp_path)


def cell_of(overrides):
    return build_cell(compose_config(overrides))


def contents(folder: Path) -> dict[str, str]:
    """Hashes of the pictures and the manifest of a run."""
    files = [*folder.glob("images/*"), folder / "manifest.jsonl", folder / "config.yaml"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_run_leaves_the_designed_files(tiny):
    folder = run_cell(tiny)
    cell = cell_of(tiny)
    assert folder == cell.folder
    assert folder.name == f"folder-scalecrafter-64x64-{cell.digest[:8]}"
    records = read_records(folder)
    assert [r.id for r in records] == ["000000", "000001", "000002", "000003"]
    assert [r.prompt for r in records] == [p.text for p in cell.prompts]
    assert Image.open(folder / records[0].file).size == (64, 64)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["n"] == 4
    for key in ("fid_r", "kid_r", "fid_b", "kid_b"):
        assert np.isfinite(metrics[key])
        assert metrics[f"{key}_se"] >= 0
    assert metrics["repetition"] >= 0
    assert metrics["seconds_per_image"] > 0
    assert metrics["protocol"]["reference"]["n"] == 12


def test_the_work_of_a_picture_is_counted(tiny):
    """Two steps on a guidance pair: at four times the area each counts four; four windows as many; Lanczos none."""
    expected = {"direct": 8, "scalecrafter": 8, "multidiffusion": 8, "upscale": 2}
    for method, evaluations in expected.items():
        folder = run_cell([*tiny, f"method={method}"])
        assert json.loads((folder / "metrics.json").read_text())["unet_evaluations_per_image"] == evaluations


def test_the_batch_size_changes_no_picture(tiny, tmp_path):
    first = draw_cell(cell_of([*tiny, "batch_size=4"]))
    second = draw_cell(cell_of([*tiny, "batch_size=1", f"paths.runs={tmp_path / 'other'}"]))
    for a, b in zip(read_records(first), read_records(second), strict=True):
        pixels = [np.asarray(Image.open(f / r.file)).astype(int) for f, r in ((first, a), (second, b))]
        assert np.abs(pixels[0] - pixels[1]).max() <= 2


def test_only_what_is_missing_or_damaged_is_drawn_again(tiny, monkeypatch):
    cell = cell_of([*tiny, "batch_size=1"])
    folder = draw_cell(cell)
    before = contents(folder)
    (folder / "images/000001.png").unlink()
    (folder / "images/000002.png").write_bytes(b"damaged")
    with (folder / "manifest.jsonl").open("a") as stream:
        stream.write('{"id": "000003", "pro')  # torn by a crash
    drawn = []
    original = draw_module.draw_batch
    monkeypatch.setattr(draw_module, "draw_batch", lambda c, p, m: drawn.extend(x.id for x in p) or original(c, p, m))
    draw_cell(cell)
    assert drawn == ["000001", "000002"]
    assert contents(folder) == before
    drawn.clear()
    draw_cell(cell)
    assert not drawn


@pytest.mark.parametrize("pictures", [0, 1, 3])
def test_killed_at_any_moment_a_rerun_ends_with_the_same_files(tiny, tmp_path, pictures):
    """kill -9 once some pictures are there; then run again and compare with an uninterrupted run."""
    tiny = [line for line in tiny if not line.startswith("metrics.")]
    killed = [*tiny, f"paths.runs={tmp_path / 'killed'}", "batch_size=1", "metrics=none", "sampler.steps=20"]
    command = [sys.executable, "-m", "experiments.run", *killed]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(tmp_path.glob("killed/folder-*/images/*"))) < pictures:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    resumed = draw_cell(cell_of(killed))
    whole = draw_cell(cell_of([*killed, f"paths.runs={tmp_path / 'whole'}"]))
    assert contents(resumed) == contents(whole)
    assert not list(resumed.rglob("*.tmp"))


def test_the_whole_table(tiny, tmp_path, capsys):
    reproduce(tiny)
    printed = capsys.readouterr().out
    results = tmp_path / "results"
    files = [
        "table1.csv",
        "table1.md",
        "table1.tex",
        "table1.png",
        "gallery_x4.png",
        "zoom_x16.png",
        "table1_cost.pdf",
    ]
    for name in files:
        assert (results / name).stat().st_size > 200
        assert name in printed
    rows = (results / "table1.csv").read_text().splitlines()
    assert len(rows) == 1 + 6 + 4  # two cells at x16 are left out
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/images/*")}
    reproduce(tiny)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/images/*")} == stamps


def test_the_best_and_what_cannot_be_told_apart_from_it_are_marked():
    """Paired: the second moves with the first and is surely worse, the third is worse by less than its noise."""
    groups = (1,) * 5
    best = Estimate(1.0, (0.8, 0.9, 1.0, 1.1, 1.2), groups)
    surely = Estimate(1.5, tuple(v + 0.5 for v in best.without), groups)
    maybe = Estimate(1.1, (1.3, 1.2, 1.1, 1.0, 0.9), groups)
    assert among_the_best({7: surely, 8: best, 9: maybe}) == [8, 9]
    assert among_the_best({}) == []


def test_a_table_never_mixes_protocols(tiny):
    few, many = [*tiny, "method=direct"], [*tiny, "prompts.limit=5"]
    run_cell(few)
    run_cell(many)
    with pytest.raises(ValueError, match="cannot share a table: n is 4 and 5"):
        collect([Row(cell_of(few)), Row(cell_of(many))])
    a, b = ({"n": 3, "protocol": {"extractor": name}} for name in "ab")
    with pytest.raises(ValueError, match="one and three cannot share a table: extractor is a and b"):
        require_same_protocol([("one", "x4", a), ("two", "x4", a), ("three", "x16", b)])


def test_references_are_alike_within_a_resolution():
    a, b = ({"n": 3, "protocol": {"reference": {"source": name}}} for name in "ab")
    require_same_protocol([("one", "x4", a), ("two", "x16", b), ("three", "x4", a)])
    with pytest.raises(ValueError, match="two and three cannot share a table: reference is .*b.* and .*a"):
        require_same_protocol([("one", "x4", a), ("two", "x16", b), ("three", "x16", a)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "method=nope",
            "Could not find 'method/nope' Available options in 'method': attention_scaling direct multidiffusion",
        ),
        ("resolution=x5", "Available options in 'resolution': x1 x16 x4 x6_25 x8"),
        ("model=nope", "Available options in 'model'"),
        ("promts.limit=3", "promts.limit"),
        ("prompts.limit=2", "too few for a score"),
        ("prompts.limit=0", "at least 1"),
        ("model.path=/nowhere", "no pipeline folder at /nowhere"),
        ("resolution.scale_width=2.1", "67.2 pixels"),
        ("resolution.scale_width=2.25", "divisible by 32.*nearest size is 64x64"),
        ("scalecrafter.settings=nope", "no settings 'nope'"),
        ("method=syncdiffusion syncdiffusion.anchor=last", "method syncdiffusion: .*anchor is middle or first"),
        ("method=multidiffusion multidiffusion.stride=9", "stride must be 1 to 8"),
        ("method=upscale_sd upscale_sd.model=/nowhere", "no x4 upscaler at '/nowhere'"),
        ("scalecrafter.dilation={mid_blok: 2}", "mid_blok.*no 3x3 convolution"),
        ("model.dtype=float31", "must be auto"),
        ("plan=maybe", "plan is true or false, not 'maybe'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_drawn(tiny, tmp_path, change, message):
    with pytest.raises((ValueError, OSError), match=message):
        single([*tiny, *change.split(" ")] if change.startswith("method=") else [*tiny, change])
    assert not (tmp_path / "runs").exists()


def test_errors_are_one_line_and_exit_code_two(tiny):
    command = [sys.executable, "-m", "experiments.run", *tiny, "model.path=/nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: no pipeline folder at /nowhere")
    assert "Traceback" not in done.stderr


def test_a_damaged_weights_file_is_named(tiny, tmp_path, pipe_folder):
    import shutil

    shutil.copytree(pipe_folder, tmp_path / "damaged")
    (tmp_path / "damaged/unet/diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="incomplete or damaged"):
        single([*tiny, f"model.path={tmp_path / 'damaged'}"])


def test_a_folder_of_another_run_is_left_alone(tiny):
    cell = cell_of(tiny)
    cell.folder.mkdir(parents=True)
    (cell.folder / "config.yaml").write_text("something: else\n")
    with pytest.raises(ValueError, match="another configuration"):
        draw_cell(cell)
    assert [path.name for path in cell.folder.iterdir()] == ["config.yaml"]


EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("prompts", ["scenes", "file"])
def test_every_experiment_composes(experiment, prompts, tmp_path):
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    overrides = [f"experiment={experiment}", f"prompts={prompts}"]
    overrides += [f"prompts.path={tmp_path / 'prompts.txt'}"] if prompts == "file" else []
    read = read_experiment(overrides)
    assert read.name in (experiment, f"{experiment}_scenes")  # the paper's is named after the model, too
    for line in read.lines:
        compose_config(line)


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name.startswith("ablate_")])
def test_every_ablation_varies_what_it_says(experiment):
    """Each cell has an identity of its own."""
    rows = read_experiment([f"experiment={experiment}"]).rows()
    assert len({row.cell.digest for row in rows}) == len(rows) > 1
    assert len({(row.cell.resolution, row.cell.method_name, row.variant) for row in rows}) == len(rows)


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name != "paper"])
def test_every_experiment_runs(tiny, experiment):
    """Its first and its last cell; the paper's runs in test_real_models."""
    small = [*tiny, f"experiment={experiment}", "prompts.limit=3", "metrics.crops=null"]
    lines = read_experiment(small).lines
    assert read_scores(run_cell(lines[0]) / "metrics.json")["n"] == 3
    assert read_scores(run_cell(lines[-1]) / "metrics.json")["n"] == 3


def test_grids_join_and_values_may_have_labels(tiny):
    first = "{resolution: [x4], method: [scalecrafter], scalecrafter.tau: [3, 7]}"
    second = "{resolution: [x4], method: [scalecrafter], scalecrafter.dilation: {inner: {mid_block: 2}, plain: null}}"
    cells = f"experiment.cells=[{first}, {second}, {first}]"
    read = read_experiment([*tiny, "experiment=ablate_guidance", cells])
    assert read.variants == ("tau 3", "tau 7", "dilation inner", "dilation plain")
    rows = read.rows()
    assert dict(rows[2].cell.identity["method"]["dilation"]) == {
        "mid_block.resnets.0.conv1": 2,
        "mid_block.resnets.0.conv2": 2,
        "mid_block.resnets.1.conv1": 2,
        "mid_block.resnets.1.conv2": 2,
    }


def test_an_experiments_overrides_give_way_to_the_command_lines(tiny):
    lines = read_experiment(["experiment=ablate_tau", "experiment.overrides=['prompts.limit=7','seed=3']"]).lines
    assert compose_config(lines[0]).prompts.limit == 7
    lines = read_experiment(["prompts.limit=5", "experiment=ablate_tau"]).lines
    assert compose_config(lines[0]).prompts.limit == 5


def test_an_ablation_writes_its_table_gallery_and_plot(tiny, tmp_path, capsys):
    small = ["experiment=ablate_tau", "experiment.cells={resolution: [x4], scalecrafter.tau: [0, 50]}"]
    reproduce([*tiny, *small])
    printed = capsys.readouterr().out
    assert "tau 0" in printed
    assert "tau 50" in printed
    for name in ("ablate_tau.csv", "ablate_tau_x4.png", "ablate_tau_plot.png", "ablate_tau_plot.pdf"):
        assert (tmp_path / "results" / name).stat().st_size > 200


def test_a_cell_that_fails_does_not_stop_the_others(tiny, tmp_path, capsys, monkeypatch):
    original = draw_module.draw_batch

    def fails_sometimes(cell, prompts, manifest):
        if cell.method_name == "upscale":
            raise ValueError("made to fail")
        return original(cell, prompts, manifest)

    monkeypatch.setattr(draw_module, "draw_batch", fails_sometimes)
    cells = "experiment.cells={resolution: [x4], method: [upscale, direct]}"
    with pytest.raises(ValueError, match="1 of 2 cells failed, the others are complete: folder-upscale.*made to fail"):
        reproduce([*tiny, cells])
    assert "direct" in capsys.readouterr().out
    assert len((tmp_path / "results/table1.csv").read_text().splitlines()) == 2


def test_values_as_hydra_reads_them():
    assert [override(value) for value in (None, True, 2, 1.5, "x4")] == ["null", "true", "2", "1.5", "x4"]


def test_two_jobs_that_need_the_same_cell_draw_it_once(tiny):
    """Started together; whoever comes second waits and finds it done."""
    command = [sys.executable, "-m", "experiments.run", *tiny, "metrics=none", "sampler.steps=30"]
    jobs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for job in jobs:
        job.communicate()
        assert job.returncode == 0
    cell = cell_of([*tiny, "metrics=none", "sampler.steps=30"])
    costs = [json.loads(line) for line in (cell.folder / "costs.jsonl").read_text().splitlines()]
    assert sum(cost["images"] for cost in costs) == 4
    assert len((cell.folder / "manifest.jsonl").read_text().splitlines()) == 4
