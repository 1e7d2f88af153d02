"""`python -m experiments.benchmark`: what each method costs, as a ratio to another one in the same run.

Two methods are measured in turns, many times, and each pair gives one ratio: whatever else the machine does slows both
alike. Reported are the median and the range of the ratios. A new method is one more `Row` in `ROWS`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from baselines.attention_scaling import AttentionScaling
from baselines.direct import Direct
from baselines.method import Request, Sampler, UNetMethod
from baselines.multidiffusion import MultiDiffusion
from baselines.scalecrafter import ScaleCrafter
from experiments.cost.counting import unet_inputs
from experiments.sampling.generate import environment
from experiments.sampling.manifest import write_atomically
from experiments.setup.command_line import command
from experiments.setup.models import LoadedModel, ModelSource, load_model
from scalecrafter.pipeline import pixels_per_cell, training_size
from scalecrafter.settings import Settings

SIDES = {"x4": (2, 2), "x8": (2, 4), "x16": (4, 4)}  # (height, width) relative to the training size
SHORTEST = 0.2  # seconds: faster calls are timed several in a row


class WithoutDilation(ScaleCrafter):
    """The method with every factor at one and always active: what its machinery alone costs."""

    def resolve(self, pipe: Any, height: int, width: int) -> Settings:
        settings = super().resolve(pipe, height, width)
        return replace(settings, dilation=dict.fromkeys(settings.dilation, 1.0), tau=50)


@dataclass(frozen=True)
class Row:
    """``method`` against ``baseline``; ``limit`` is the ratio that it should stay below."""

    name: str
    method: UNetMethod
    limit: float
    measures: tuple[str, ...] = ("unet",)
    baseline: UNetMethod = field(default_factory=Direct)


PLAIN = {"noise_damped_tau": 0, "dispersed_tau": 0}
ROWS = (
    Row("re-dilation", ScaleCrafter(changes=PLAIN), 1.05, ("unet", "sampling", "memory")),
    Row("the machinery alone (d = 1)", WithoutDilation(changes=PLAIN), 1.05),
    Row("noise-damped guidance", ScaleCrafter(changes=PLAIN | {"noise_damped_tau": 50}), 1.55, ("unet", "memory")),
    Row("attention scaling", AttentionScaling(), 1.05),
    Row(
        "MultiDiffusion, 8 windows a call / 1", MultiDiffusion(8), 1 / 1.5, baseline=MultiDiffusion(8, window_batch=1)
    ),
)


@dataclass(frozen=True)
class Result:
    """One line of the report: medians of single measurements, and the ratios over pairs of neighbours in time."""

    name: str
    resolution: str
    height: int
    width: int
    measure: str
    unit: str
    pairs: int
    baseline: float
    method: float
    ratio: float
    ratio_min: float
    ratio_max: float
    limit: float


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def unet_call(pipe: Any, request: Request) -> Callable[[], Any]:
    """A call on a guidance pair for each prompt at the first timestep, where every layer of a table is active."""
    rows, columns = (side // pixels_per_cell(pipe) for side in (request.height, request.width))
    inputs = unet_inputs(pipe.unet, 2 * len(request.prompts), rows, columns, pipe.tokenizer.model_max_length)
    return partial(pipe.unet, timestep=pipe.scheduler.config.num_train_timesteps - 1, **inputs)


def time_unet(pipe: Any, method: UNetMethod, request: Request, calls: int) -> float:
    """Seconds of one U-Net call."""
    call = unet_call(pipe, request)
    with method.enable(pipe, height=request.height, width=request.width), torch.no_grad():
        synchronize()
        started = time.perf_counter()
        for _ in range(calls):
            call()
        synchronize()
    return (time.perf_counter() - started) / calls


def time_sampling(pipe: Any, method: UNetMethod, request: Request, calls: int) -> float:
    """Seconds from prompts to pictures, decoding included."""
    synchronize()
    started = time.perf_counter()
    for _ in range(calls):
        method.generate(pipe, request)
    synchronize()
    return (time.perf_counter() - started) / calls


def unet_memory(pipe: Any, method: UNetMethod, request: Request, calls: int) -> float:
    """Most bytes that tensors hold at any moment of one U-Net call, the weights among them."""
    call = unet_call(pipe, request)
    weights = sum(p.nbytes for p in pipe.unet.parameters())
    with method.enable(pipe, height=request.height, width=request.width), torch.no_grad():
        call()  # what is made once, like dispersed kernels, is there from now on
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            call()
            return float(torch.cuda.max_memory_allocated())
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            call()
    changes = [(e.start_ns(), e.nbytes()) for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for _, change in sorted(changes):
        held += change
        most = max(most, held)
    return float(weights + most)


@dataclass(frozen=True)
class Measure:
    """How to measure one call, in which unit, and whether a short one has to be repeated."""

    function: Callable[[Any, UNetMethod, Request, int], float]
    unit: str = "s"


MEASURES = {"unet": Measure(time_unet), "sampling": Measure(time_sampling), "memory": Measure(unet_memory, "bytes")}


def measure_pairs(pipe: Any, row: Row, measure: Measure, request: Request, pairs: int) -> list[tuple[float, float]]:
    """(baseline, method) values, one of each per pair; who goes first alternates. The first calls are not counted."""
    sides = (row.baseline, row.method)
    calls = 1
    if measure.unit == "s":
        warm = [measure.function(pipe, method, request, 1) for method in (*sides, *sides)]
        calls = max(1, math.ceil(SHORTEST / min(warm)))
    else:
        pairs = 1  # bytes do not vary
    found = []
    for pair in range(pairs):
        order = sides if pair % 2 == 0 else sides[::-1]
        first, second = (measure.function(pipe, method, request, calls) for method in order)
        found.append((first, second) if pair % 2 == 0 else (second, first))
    return found


def summarize(row: Row, resolution: str, name: str, request: Request, values: Sequence[tuple[float, float]]) -> Result:
    ratios = [method / baseline for baseline, method in values]
    return Result(
        name=row.name,
        resolution=resolution,
        height=request.height,
        width=request.width,
        measure=name,
        unit=MEASURES[name].unit,
        pairs=len(values),
        baseline=statistics.median(baseline for baseline, _ in values),
        method=statistics.median(method for _, method in values),
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        limit=row.limit,
    )


def requests(pipe: Any, resolutions: Sequence[str], batch: int, steps: int) -> dict[str, Request]:
    """What to draw at each resolution; every method is checked against every size before anything is timed."""
    height, width = training_size(pipe)
    prompts, seeds = ["a red mushroom in a meadow"] * batch, list(range(batch))
    made = {
        name: Request(prompts, seeds, height * SIDES[name][0], width * SIDES[name][1], Sampler(steps))
        for name in resolutions
    }
    for request in made.values():
        for row in ROWS:
            row.method.describe(pipe, request.height, request.width)
    return made


def run_benchmark(model: LoadedModel, arguments: argparse.Namespace) -> list[Result]:
    asked = requests(model.pipe, arguments.resolutions, arguments.batch, arguments.steps)
    measurements = [(row, name, *item) for item in asked.items() for row in ROWS for name in row.measures]
    results = []
    for row, name, resolution, request in tqdm(measurements, desc="benchmark", unit="row"):
        pairs = arguments.sampling_pairs if name == "sampling" else arguments.pairs
        values = measure_pairs(model.pipe, row, MEASURES[name], request, pairs)
        results.append(summarize(row, resolution, name, request, values))
    return results


def markdown(results: Sequence[Result]) -> str:
    """The report as a table."""

    def shown(value: float, unit: str) -> str:
        return f"{1000 * value:.0f} ms" if unit == "s" else f"{value / 1e6:.1f} MB"

    lines = [
        "| method | size | measured | baseline | method | ratio (range) | limit |",
        "|---|---|---|---:|---:|---|---|",
    ]
    for r in results:
        values = f"{shown(r.baseline, r.unit)} | {shown(r.method, r.unit)}"
        ratio = f"{r.ratio:.3f}" + (f" ({r.ratio_min:.3f} to {r.ratio_max:.3f})" if r.pairs > 1 else "")
        verdict = f"{r.limit:.2f}" + ("" if r.ratio <= r.limit else " exceeded")
        lines.append(f"| {r.name} | {r.height}x{r.width} | {r.measure} | {values} | {ratio} | {verdict} |")
    return "\n".join(lines)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmark", description="What each method costs, as ratios measured in one run."
    )
    parser.add_argument("--model", metavar="DIR", help="folder of a pipeline (default: the project's scenes model)")
    parser.add_argument("--resolutions", nargs="+", choices=list(SIDES), default=["x4", "x16"])
    parser.add_argument("--pairs", type=positive, default=15, help="pairs of timed U-Net calls")
    parser.add_argument("--sampling-pairs", type=positive, default=5, help="pairs of timed samplings")
    parser.add_argument("--steps", type=positive, default=10, help="steps of a sampling")
    parser.add_argument("--batch", type=positive, default=1, help="pictures at a time")
    parser.add_argument("--dtype", default="auto", help="auto, float32, float16 or bfloat16")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder for benchmark.json")
    return parser


def main(argv: Sequence[str]) -> None:
    arguments = build_parser().parse_args(argv)
    model = load_model(
        ModelSource("scenes" if arguments.model is None else "folder", arguments.model, dtype=arguments.dtype)
    )
    results = run_benchmark(model, arguments)
    report = {
        "environment": environment() | {"threads": str(torch.get_num_threads())},
        "model": {"name": model.name, "sha256": model.digest, "dtype": model.dtype},
        "batch": arguments.batch,
        "steps": arguments.steps,
        "results": [asdict(result) for result in results],
    }
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / "benchmark.json"
    write_atomically(path, (json.dumps(report, indent=2) + "\n").encode())
    print(f"\n{markdown(results)}\n\n{path}")


if __name__ == "__main__":
    command(main)
