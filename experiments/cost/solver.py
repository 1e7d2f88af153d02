"""`python -m experiments.cost.solver`: seconds for a Fréchet distance from statistics, ours and the libraries', and
for KID of features with its standard error over prompts.

All are timed in one process; each time is the fastest of several repeats, that of KID a single one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from eval.fid import features_to_stats, stats_to_fid
from eval.files import write_atomically
from eval.uncertainty import estimate_kid
from experiments.setup.command_line import command
from experiments.setup.identity import environment

T = TypeVar("T")


def solvers(x: np.ndarray, y: np.ndarray) -> dict[str, Callable[[], float]]:
    """The distance between features (n, dim) and (m, dim), their statistics taken beforehand."""
    from cleanfid.fid import frechet_distance
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    a, b = features_to_stats(x), features_to_stats(y)
    theirs = [fid_features_to_statistics(torch.from_numpy(side)) for side in (x, y)]
    return {
        "ours": lambda: stats_to_fid(a, b),
        "clean-fid": lambda: float(frechet_distance(a.mean, a.cov, b.mean, b.cov)),
        "torch-fidelity": lambda: fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"],
    }


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """(value, seconds)."""
    started = time.perf_counter()
    value = function()
    return value, time.perf_counter() - started


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.cost.solver", description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder for benchmark_solver.json")
    arguments = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(arguments.dim, arguments.dim)) / np.sqrt(arguments.dim)
    x, y = (rng.normal(shift, 1, (arguments.images, arguments.dim)) @ mixing for shift in (0, 0.05))
    found = solvers(x, y)
    times: dict[str, list[float]] = {name: [] for name in found}
    values: dict[str, float] = {}
    for _ in range(arguments.repeats):
        for name, solve in found.items():
            values[name], seconds = timed(solve)
            times[name].append(seconds)
    report = {
        name: {
            "distance": values[name],
            "seconds": min(times[name]),
            "ours / it": min(times["ours"]) / min(times[name]),
        }
        for name in found
    }
    kid, seconds = timed(lambda: estimate_kid(x, y))
    of_kid = {"kid": kid.value, "standard error": kid.se, "seconds": seconds}
    about = {"images": arguments.images, "dim": arguments.dim, "threads": torch.get_num_threads(), **environment()}
    text = json.dumps({"environment": about, "solvers": report, "kid": of_kid}, indent=2)
    write_atomically(arguments.results / "benchmark_solver.json", f"{text}\n".encode())
    print(text)


if __name__ == "__main__":
    command(main)
