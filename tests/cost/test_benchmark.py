"""The benchmark runs, measures what it says, and reports every row."""

import json
from pathlib import Path

import pytest
import torch

from baselines.direct import Direct
from baselines.method import Request, Sampler
from experiments import benchmark, run
from experiments.benchmark import TiledDecoding, benchmark_rows, main
from experiments.cost import measuring, solver
from experiments.cost.measuring import MEASURES, Measure, measure_pairs, unet_memory
from experiments.results import resuming
from experiments.results.resuming import measure_resume

REQUEST = Request(["a"], [0], 64, 64, Sampler(2))


SMALL = ["metrics.reference_count=6", "metrics.reference_minimum=2", "metrics.repetition=null"]


def files_after(seen):
    """`experiments.run` that appends what is in the folder of runs after it, with times."""

    def main(line):
        run.main(line)
        folders = [path.parent for path in Path(line[-1].removeprefix("paths.runs=")).glob("*/manifest.jsonl")]
        seen.append(
            {p: p.stat().st_mtime_ns for each in folders for p in each.rglob("*.*") if ".hydra" not in p.parts}
        )

    return main


@pytest.mark.usefixtures("own_convolutions")
def test_every_row_is_reported_and_what_is_resumed_stays_as_it_is(light_folder, tmp_path, capsys, monkeypatch):
    """The first of two calls scores the flat images, the second makes nothing."""
    seen = []
    monkeypatch.setattr(measuring, "SHORTEST", 0)
    monkeypatch.setattr(resuming, "IMAGES_PER_RUN", 4)
    monkeypatch.setattr(
        benchmark,
        "measure_resume",
        lambda main, images, runs, options: measure_resume(files_after(seen), images, runs, [*SMALL, *options]),
    )
    options = ["--pairs", "1", "--sampling-pairs", "1", "--steps", "1", "--resolutions", "x4"]
    options += ["--resume-images", "3", "--resume-runs", "2"]
    main(["--model", str(light_folder), *options, "--results", str(tmp_path)])
    report = json.loads((tmp_path / "benchmark.json").read_text())
    expected = [(row.name, measure) for row in benchmark_rows() for measure in row.measures]
    assert [(result["name"], result["measure"]) for result in report["results"]] == expected
    printed = capsys.readouterr().out
    assert all(row.name in printed for row in benchmark_rows())
    for result in report["results"]:
        assert result["ratio"] == pytest.approx(result["method"] / result["baseline"])
        assert result["ratio_min"] <= result["ratio"] <= result["ratio_max"]
    assert {"python", "torch", "threads", "device"} <= report["environment"].keys()
    names = ["a finished run of 3 images", "2 finished runs of 4 images"]
    assert [each["name"] for each in report["resume"]] == names
    assert all(each["name"] in printed and each["seconds"] > 0 for each in report["resume"])
    for first, second, runs, images in ((*seen[:2], 1, 3), (*seen[2:], 2, 8)):
        assert first == second
        assert len([path for path in first if path.suffix == ".png"]) == images
        assert len([path for path in first if path.name == "metrics.json"]) == runs


def test_ratios_are_method_over_baseline_whoever_goes_first(monkeypatch):
    """A made-up measure that says 3 for the method and 2 for the baseline, and notes the order of the calls."""
    baseline, method, order = Direct(), Direct(), []
    monkeypatch.setattr(measuring, "SHORTEST", 0)

    def measure(pipe, which, request, calls):
        order.append(which is method)
        return 3.0 if which is method else 2.0

    assert measure_pairs(None, baseline, method, Measure(measure), REQUEST, 3) == [(2.0, 3.0)] * 3
    assert order[4:] == [False, True, True, False, False, True]


def test_timing_is_the_clock_around_the_calls(pipe, monkeypatch):
    """A clock that only the U-Net moves, by 50 ms a call: sampling two steps takes twice that, whatever else runs."""
    clock = [0.0]
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock[0])
    pipe.unet.register_forward_pre_hook(lambda *_: clock.__setitem__(0, clock[0] + 0.05))
    assert MEASURES["unet"].function(pipe, Direct(), REQUEST, 3) == pytest.approx(0.05)
    assert MEASURES["sampling"].function(pipe, Direct(), REQUEST, 3) == pytest.approx(0.10)
    pipe.vae.decoder.register_forward_pre_hook(lambda *_: clock.__setitem__(0, clock[0] + 0.07))
    assert MEASURES["decoding"].function(pipe, Direct(), REQUEST, 3) == pytest.approx(0.07)


def test_tiles_of_the_row_are_those_of_the_training_size(pipe):
    """Four of them at four times the area, where the plain row decodes at once."""
    sides = []
    pipe.vae.decoder.conv_out.register_forward_pre_hook(lambda _, args: sides.append(args[0].shape[-2:]))
    for method in (Direct(), TiledDecoding()):
        MEASURES["decoding"].function(pipe, method, REQUEST, 1)
    assert [max(side) for side in sides] == [64, 33, 33, 33, 33]  # with one pixel beyond the inner border


def test_memory_sees_memory(pipe):
    """40 MB held for a moment are the peak of a call that needs far less."""
    plain = unet_memory(pipe, Direct(), REQUEST, 1)
    hook = pipe.unet.register_forward_pre_hook(lambda *_: torch.empty(10_000_000).fill_(1) is None or None)
    more = unet_memory(pipe, Direct(), REQUEST, 1)
    hook.remove()
    weights = sum(p.nbytes for p in pipe.unet.parameters())
    assert weights < plain < weights + 10e6
    assert 39e6 < more - weights < 41e6


def test_options_that_make_no_sense_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--pairs", "0"])
    assert "at least 1" in capsys.readouterr().err


def test_solvers_agree_and_are_reported(tmp_path, capsys):
    solver.main(["--images", "200", "--dim", "16", "--results", str(tmp_path)])
    report = json.loads((tmp_path / "benchmark_solver.json").read_text())
    assert json.loads(capsys.readouterr().out) == report
    distances = [found["distance"] for found in report["solvers"].values()]
    assert len(distances) == 3
    assert distances == pytest.approx([distances[0]] * 3, rel=1e-6)
    assert all(found["seconds"] > 0 for found in [*report["solvers"].values(), report["kid"]])
    assert report["kid"]["standard error"] > 0
