"""`python -m experiments.benchmark`: what each method costs, as a ratio to direct inference at the same size.

A method and direct inference are timed in turns, many times, and each pair gives one ratio: whatever else the machine
does slows both alike. Reported are the median and the range of the ratios. A new method is one more `Row` in `ROWS`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from baselines.direct import Direct
from experiments.config import command
from experiments.manifest import write_atomically
from experiments.models import LoadedModel, load_model
from experiments.run import environment
from scalecrafter.method import Request, Sampler, ScaleCrafter, UNetMethod
from scalecrafter.pipeline import training_size
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
    """A method to time; ``limit`` is the ratio that it should stay below."""

    name: str
    method: UNetMethod
    measures: tuple[str, ...] = ("unet", "sampling")
    limit: float = 1.05


ROWS = (
    Row("scalecrafter", ScaleCrafter()),
    Row("scalecrafter, d = 1", WithoutDilation(), measures=("unet",)),
)


@dataclass(frozen=True)
class Result:
    """One line of the report: medians of a single call in seconds, and the ratios over pairs of neighbours in time."""

    method: str
    resolution: str
    height: int
    width: int
    measure: str
    pairs: int
    direct_seconds: float
    method_seconds: float
    ratio: float
    ratio_min: float
    ratio_max: float
    limit: float


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_unet(pipe: Any, method: UNetMethod, request: Request, calls: int) -> float:
    """Seconds of one U-Net call on guidance pairs at the first timestep, where every layer of a table is active."""
    unet, cells = pipe.unet, (request.height // pipe.vae_scale_factor, request.width // pipe.vae_scale_factor)
    batch, device = 2 * len(request.prompts), {"device": unet.device, "dtype": unet.dtype}
    latents = torch.randn(batch, unet.config.in_channels, *cells, generator=torch.Generator().manual_seed(0))
    text = torch.zeros(batch, pipe.tokenizer.model_max_length, unet.config.cross_attention_dim)
    latents, text = latents.to(**device), text.to(**device)
    timestep = pipe.scheduler.config.num_train_timesteps - 1
    with method.enable(pipe, height=request.height, width=request.width), torch.no_grad():
        synchronize()
        started = time.perf_counter()
        for _ in range(calls):
            unet(latents, timestep, encoder_hidden_states=text)
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


MEASURES: dict[str, Callable[[Any, UNetMethod, Request, int], float]] = {
    "unet": time_unet,
    "sampling": time_sampling,
}


def time_pairs(pipe: Any, row: Row, measure: str, request: Request, pairs: int) -> list[tuple[float, float]]:
    """(direct, method) seconds, one of each per pair; who goes first alternates. The first calls are not counted."""
    timer, direct = MEASURES[measure], Direct()
    warm = [timer(pipe, method, request, 1) for method in (direct, row.method, direct, row.method)]
    calls = max(1, math.ceil(SHORTEST / min(warm)))
    timed = []
    for pair in range(pairs):
        seconds = {}
        for method in (direct, row.method) if pair % 2 == 0 else (row.method, direct):
            seconds[method is direct] = timer(pipe, method, request, calls)
        timed.append((seconds[True], seconds[False]))
    return timed


def summarize(
    row: Row, resolution: str, measure: str, request: Request, timed: Sequence[tuple[float, float]]
) -> Result:
    ratios = [method / direct for direct, method in timed]
    return Result(
        method=row.name,
        resolution=resolution,
        height=request.height,
        width=request.width,
        measure=measure,
        pairs=len(timed),
        direct_seconds=statistics.median(direct for direct, _ in timed),
        method_seconds=statistics.median(method for _, method in timed),
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
    todo = [
        (row, resolution, measure, request)
        for resolution, request in requests(
            model.pipe, arguments.resolutions, arguments.batch, arguments.steps
        ).items()
        for row in ROWS
        for measure in row.measures
    ]
    results = []
    for row, resolution, measure, request in tqdm(todo, desc="benchmark", unit="row"):
        pairs = arguments.pairs if measure == "unet" else arguments.sampling_pairs
        timed = time_pairs(model.pipe, row, measure, request, pairs)
        results.append(summarize(row, resolution, measure, request, timed))
    return results


def markdown(results: Sequence[Result]) -> str:
    """The report as a table."""
    lines = [
        "| method | size | measured | direct | method | ratio (range) | limit |",
        "|---|---|---|---:|---:|---|---|",
    ]
    for r in results:
        seconds = f"{1000 * r.direct_seconds:.0f} ms | {1000 * r.method_seconds:.0f} ms"
        ratio = f"{r.ratio:.3f} ({r.ratio_min:.3f} to {r.ratio_max:.3f})"
        verdict = f"{r.limit:.2f}" + ("" if r.ratio <= r.limit else " exceeded")
        lines.append(f"| {r.method} | {r.height}x{r.width} | {r.measure} | {seconds} | {ratio} | {verdict} |")
    return "\n".join(lines)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmark", description=__doc__.splitlines()[0])
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
    model = load_model("scenes" if arguments.model is None else "folder", arguments.model, arguments.dtype)
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
