"""`python -m experiments.search [--methods NAME ...] [--resolutions NAME ...]`: the same recorded search for every
method.

Every method gets the same prompts and seeds, which no table uses, the same objective and the same budget of complete
runs. What is tried for which method is written in a file (experiments/scenes/search.yaml). All candidates are written
to docs/scenes_search.csv, from which the table says under it what was searched. A search goes on where it was
interrupted.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from eval.files import write_atomically
from experiments.scenes import SEARCH_RECORD
from experiments.scoring.runs import complete_run
from experiments.setup.command_line import command
from experiments.setup.compose import compose_config
from experiments.setup.runs import build_run

SPACE = Path(__file__).parent / "scenes/search.yaml"
PROMPTS_SEED, RUN_SEED = 71, 7  # tables: 1 and 0
BUDGET, LIMIT = 12, 32
OBJECTIVE = ("kid_r", "pkid_r")
SHOWN = ("n", "kid_r", "kid_r_se", "pkid_r", "pkid_r_se", "repetition", "object_accuracy", "colour_accuracy")
CONFIGURED = "as configured"

Space = Mapping[str, Mapping[str, Mapping[str, Sequence[str]]]]
Scorer = Callable[[Sequence[str]], Mapping[str, float]]


def read_space(path: Path) -> Space:
    """Method -> stage -> resolution, or "any" -> overrides of each candidate; ValueError if a file is none."""
    space = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(space, dict) or not all(isinstance(stages, dict) for stages in space.values()):
        raise ValueError(f"{path} is no search space: it maps methods to stages, and those to candidates")
    return space


def stages_of(space: Space, method: str, resolution: str, budget: int) -> list[tuple[str, list[str]]]:
    """The stages of a method at one size and their candidates.

    Raises:
        ValueError: the space does not list the method, or lists more candidates than the budget has runs.
    """
    if method not in space:
        raise ValueError(f"no search is defined for {method}: choose from {', '.join(space)}")
    found = {stage: [*sizes.get("any", ()), *sizes.get(resolution, ())] for stage, sizes in space[method].items()}
    wanted = 1 + sum(map(len, found.values()))
    if wanted > budget:
        raise ValueError(f"{method} at {resolution} lists {wanted} candidates, the budget is {budget} runs")
    return [(stage, candidates) for stage, candidates in found.items() if candidates]


def search(
    space: Space, method: str, resolution: str, score: Scorer, budget: int = BUDGET
) -> tuple[list[str], list[dict[str, Any]]]:
    """Coordinate search for the lowest sum of `OBJECTIVE`.

    Args:
        space: what to try, from `read_space`.
        method: name of the method.
        resolution: name of the size.
        score: maps overrides, beyond method and size, to scores.
        budget: runs, the configured method's included.

    Returns:
        The best overrides, and a row for each candidate; ``chosen`` marks those overrides.
    """
    stages = stages_of(space, method, resolution, budget)
    best: list[str] = []
    rows: list[dict[str, Any]] = []
    lowest = float("inf")
    for stage, candidates in [(CONFIGURED, [""]), *stages]:
        start = best
        for candidate in candidates:
            overrides = [*start, *shlex.split(candidate)]
            scores = score(overrides)
            objective = sum(scores[name] for name in OBJECTIVE)
            row: dict[str, Any] = {
                "method": method,
                "resolution": resolution,
                "stage": stage,
                "candidate": " ".join(overrides),
            }
            rows.append(row | {key: scores[key] for key in SHOWN if key in scores} | {"objective": objective})
            if objective < lowest:
                lowest, best = objective, overrides
    for row in rows:
        row["chosen"] = row["candidate"] == " ".join(best)
    return best, rows


def scorer(method: str, resolution: str, limit: int, overrides: Sequence[str]) -> Scorer:
    """Complete runs on the prompts and seeds of the search; ``overrides`` act on all of them."""
    fixed = [f"method={method}", f"resolution={resolution}", f"prompts.limit={limit}"]
    fixed += [f"prompts.seed={PROMPTS_SEED}", f"seed={RUN_SEED}", *overrides]

    def score(candidate: Sequence[str]) -> Mapping[str, float]:
        scores = complete_run(build_run(compose_config([*fixed, *candidate])))
        assert scores is not None
        print(
            f"{method} {resolution} {' '.join(candidate) or CONFIGURED}: "
            + ", ".join(f"{name} {scores[name]:.4g}" for name in OBJECTIVE),
            flush=True,
        )
        return scores

    return score


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.search", description="Search every method's settings on equal terms."
    )
    add = parser.add_argument
    add("--methods", nargs="+", help="default: all of the space that have something to choose")
    add("--resolutions", nargs="+", default=["x4", "x16"])
    add("--space", type=Path, default=SPACE, help="YAML file of what to try")
    add("--budget", type=int, default=BUDGET, help="runs for each method and size, at most")
    add("--limit", type=int, default=LIMIT, help="prompts for each run")
    add("--out", type=Path, default=SEARCH_RECORD)
    add("overrides", nargs="*", help="Hydra overrides of all runs, as paths.runs=DIR")
    arguments = parser.parse_args(argv)
    space = read_space(arguments.space)
    methods = arguments.methods or [method for method, stages in space.items() if stages]
    rows: list[dict[str, Any]] = []
    for method in methods:
        for resolution in arguments.resolutions:
            score = scorer(method, resolution, arguments.limit, ["paths.runs=runs/search", *arguments.overrides])
            best, found = search(space, method, resolution, score, arguments.budget)
            rows += found
            write_atomically(arguments.out, pd.DataFrame(rows).round(4).to_csv(index=False))
            print(f"# best of {len(found)} for {method} at {resolution}: {' '.join(best) or CONFIGURED}", flush=True)


if __name__ == "__main__":
    command(main)
