"""`python -m experiments.benchmark [--model DIR] [--repeats N]`: what the methods cost, as ratios measured in one run.

The two sides of a ratio are called in turn, so that whatever else the machine does meets both; reported are the median
and the range of the ratios of neighbouring calls.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from baselines.direct import Direct
from experiments.models import load_model
from scalecrafter.method import Request, Sampler, ScaleCrafter, UNetMethod
from scalecrafter.settings import training_size

SIDES = {"x4": 2, "x16": 4}


@dataclass(frozen=True)
class Row:
    """One measured ratio."""

    name: str
    median: float
    low: float
    high: float
    baseline_seconds: float


@dataclass(frozen=True)
class Comparison:
    """``measured`` against ``baseline``, each called once per repeat."""

    name: str
    baseline: Callable[[], object]
    measured: Callable[[], object]


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(comparison: Comparison, repeats: int) -> Row:
    """Warm up once, then call both sides in turn, the order alternating."""
    seconds(comparison.baseline), seconds(comparison.measured)
    ratios, baselines = [], []
    for repeat in tqdm(range(repeats), desc=comparison.name, leave=False):
        sides = [comparison.baseline, comparison.measured]
        taken = [seconds(side) for side in (sides if repeat % 2 == 0 else sides[::-1])]
        baseline, measured = taken if repeat % 2 == 0 else taken[::-1]
        ratios.append(measured / baseline)
        baselines.append(baseline)
    return Row(comparison.name, statistics.median(ratios), min(ratios), max(ratios), statistics.median(baselines))


@torch.no_grad()
def unet_call(pipe: Any, method: UNetMethod, height: int, width: int) -> Callable[[], object]:
    """One U-Net call on a guidance pair at the first timestep, where every window is open."""
    cells = (height // pipe.vae_scale_factor, width // pipe.vae_scale_factor)
    generator = torch.Generator().manual_seed(0)
    unet = pipe.unet
    options = {"device": unet.device, "dtype": unet.dtype}
    sample = torch.randn(2, unet.config.in_channels, *cells, generator=generator).to(**options)
    text = torch.randn(2, pipe.tokenizer.model_max_length, unet.config.cross_attention_dim, generator=generator)
    text = text.to(**options)

    def call() -> None:
        context: AbstractContextManager[Any] = method.enable(pipe, height=height, width=width)
        with context, torch.no_grad():
            unet(sample, 981, text)

    return call


def sampling(pipe: Any, method: UNetMethod, height: int, width: int) -> Callable[[], object]:
    request = Request(["a red mushroom in a meadow"], [0], height, width, Sampler(steps=10, guidance_scale=5.0))
    return lambda: method.generate(pipe, request)


def comparisons(pipe: Any) -> list[Comparison]:
    """The rows: add one by adding a pair of calls."""
    direct, method = Direct(), ScaleCrafter()
    base_height, base_width = training_size(pipe)
    rows = []
    for resolution, side in SIDES.items():
        size = (base_height * side, base_width * side)
        for kind, build in (("U-Net call", unet_call), ("sampling", sampling)):
            name = f"re-dilated / direct, {kind}, {resolution}"
            rows.append(Comparison(name, build(pipe, direct, *size), build(pipe, method, *size)))
    return rows


def markdown(rows: Sequence[Row]) -> str:
    lines = ["| ratio | median | range | baseline, s |", "|:--|--:|:--|--:|"]
    lines += [f"| {r.name} | {r.median:.3f} | {r.low:.3f} to {r.high:.3f} | {r.baseline_seconds:.3f} |" for r in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of the methods, as ratios measured in one run.")
    parser.add_argument("--model", help="pipeline folder (default: the scenes model)")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    pipe = load_model("benchmark", arguments.model, "auto").pipe
    rows = [measure(comparison, arguments.repeats) for comparison in comparisons(pipe)]
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "benchmark.json").write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    print(markdown(rows))


if __name__ == "__main__":
    main()
