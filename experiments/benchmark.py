"""`python -m experiments.benchmark`: what each method costs, as a ratio to another one in the same run, and how long
resuming what is finished takes.

Two methods are measured alternately many times, and each pair gives one ratio, so that other load on the machine
slows both. Reported are the median and the range of the ratios. A new method is one more `Row` in `benchmark_rows`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
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
from eval.files import write_atomically
from experiments import run
from experiments.cost.measuring import MEASURES, measure_pairs
from experiments.results.resuming import measure_resume, resume_table
from experiments.scenes import WEIGHTS
from experiments.setup.architecture import Model, open_model
from experiments.setup.command_line import command
from experiments.setup.compose import compose_config
from experiments.setup.identity import environment
from experiments.setup.models import ModelSource
from scalecrafter.decode import tiled_decoding
from scalecrafter.pipeline import latent_size, training_size
from scalecrafter.settings import Settings

SIDES = {"x4": (2, 2), "x8": (2, 4), "x16": (4, 4)}  # (height, width) relative to the training size


class WithoutDilation(ScaleCrafter):
    """The method with every factor at one, always active: the cost of its machinery alone."""

    def resolve(self, pipe: Any, height: int, width: int) -> Settings:
        settings = super().resolve(pipe, height, width)
        return replace(settings, dilation=dict.fromkeys(settings.dilation, 1.0), tau=50)


class TiledDecoding(UNetMethod):
    """The plain model, whose images are decoded in tiles of the training size."""

    def enable(self, pipe: Any, *, height: int, width: int) -> AbstractContextManager[Any]:
        return tiled_decoding(pipe.vae, tile_size=max(latent_size(pipe, training_size(pipe))))


@dataclass(frozen=True)
class Row:
    """``method`` against ``baseline``; ``limit`` is the ratio that it should stay below."""

    name: str
    method: UNetMethod
    limit: float
    measures: tuple[str, ...] = ("unet",)
    baseline: UNetMethod = field(default_factory=Direct)


PLAIN = {"noise_damped_tau": 0, "dispersed_tau": 0}
INNER = {"mid_block": 2, "up_blocks.0+s": 2}  # layers that all families have


def benchmark_rows(tables: Mapping[float | str, str | Path] | None = None) -> tuple[Row, ...]:
    """What is measured; ``tables`` are the settings of a model that the library does not know."""
    damped = PLAIN | {"noise_damped_tau": 50}
    scalecrafter = partial(ScaleCrafter, tables=tables)
    inner = {"dilation": INNER, "tau": 50, "noise_damped_tau": 0}
    dispersed = scalecrafter(changes=inner | {"dispersed": list(INNER), "dispersed_tau": 50})
    return (
        Row("re-dilation", scalecrafter(changes=PLAIN), 1.05, ("unet", "sampling", "memory")),
        Row("the machinery alone (d = 1)", WithoutDilation(tables=tables, changes=PLAIN), 1.05),
        Row("outside the windows", scalecrafter(changes=PLAIN | {"tau": 0}), 1.01),
        Row("inner layers dispersed / dilated", dispersed, 25 / 9, baseline=scalecrafter(changes=inner)),
        Row("inner layers dispersed", dispersed, 1.03, ("memory",)),
        Row("noise-damped guidance", scalecrafter(changes=damped), 1.55, ("unet", "memory")),
        Row("tiled decoding", TiledDecoding(), 1.5, ("decoding",)),
        Row("attention scaling", AttentionScaling(), 1.05),
        Row(
            "MultiDiffusion, 8 windows a call / 1",
            MultiDiffusion(8),
            1 / 1.5,
            baseline=MultiDiffusion(8, window_batch=1),
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


def requests(pipe: Any, rows: Sequence[Row], resolutions: Sequence[str], batch: int, steps: int) -> dict[str, Request]:
    """A request for each resolution; every method is checked against every size before anything is timed."""
    height, width = training_size(pipe)
    prompts, seeds = ["a red mushroom in a meadow"] * batch, list(range(batch))
    made = {
        name: Request(prompts, seeds, height * SIDES[name][0], width * SIDES[name][1], Sampler(steps))
        for name in resolutions
    }
    for request in made.values():
        for row in rows:
            row.method.describe(pipe, request.height, request.width)
    return made


def run_benchmark(model: Model, rows: Sequence[Row], arguments: argparse.Namespace) -> list[Result]:
    pipe = model.load()
    asked = requests(pipe, rows, arguments.resolutions, arguments.batch, arguments.steps)
    measurements = [(row, name, *item) for item in asked.items() for row in rows for name in row.measures]
    results = []
    for row, name, resolution, request in tqdm(measurements, desc="benchmark", unit="row"):
        pairs = arguments.sampling_pairs if name == "sampling" else arguments.pairs
        values = measure_pairs(pipe, row.baseline, row.method, MEASURES[name], request, pairs)
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
    parser.add_argument("--resolutions", nargs="*", choices=list(SIDES), default=["x4", "x16"])
    parser.add_argument("--pairs", type=positive, default=15, help="pairs of timed U-Net calls")
    parser.add_argument("--sampling-pairs", type=positive, default=5, help="pairs of timed samplings")
    parser.add_argument("--steps", type=positive, default=10, help="steps of a sampling")
    parser.add_argument("--batch", type=positive, default=1, help="images per batch")
    parser.add_argument("--resume-images", type=int, default=10_000, help="images of the run that is resumed; 0: none")
    parser.add_argument("--resume-runs", type=int, default=24, help="runs of the experiment that is resumed; 0: none")
    parser.add_argument("--dtype", default="auto", help="auto, float32, float16 or bfloat16")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder for benchmark.json")
    return parser


def main(argv: Sequence[str]) -> None:
    arguments = build_parser().parse_args(argv)
    name = "scenes" if arguments.model is None else "folder"
    model = open_model(ModelSource(name, arguments.model or str(WEIGHTS), dtype=arguments.dtype))
    tables = None if arguments.model else compose_config([]).model.settings
    results = run_benchmark(model, benchmark_rows(tables), arguments)
    place = [] if arguments.model is None else ["model=folder", f"model.path={arguments.model}"]
    resumed = measure_resume(run.main, arguments.resume_images, arguments.resume_runs, place)
    report = {
        "environment": {**environment(), "threads": str(torch.get_num_threads())},
        "model": {"name": model.name, "sha256": model.digest, "dtype": model.dtype},
        "batch": arguments.batch,
        "steps": arguments.steps,
        "results": [asdict(result) for result in results],
        "resume": resumed,
    }
    path = arguments.results / "benchmark.json"
    write_atomically(path, (json.dumps(report, indent=2) + "\n").encode())
    print(f"\n{markdown(results)}\n\n{resume_table(resumed)}\n\n{path}")


if __name__ == "__main__":
    command(main)
