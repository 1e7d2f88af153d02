"""`python -m experiments.search [--methods NAME ...] [--resolutions NAME ...]`: the same recorded search for every
method.

Every method gets the same prompts and seeds, which no table uses, the same objective and the same budget of complete
runs. What is tried for which method is written in a file (experiments/scenes/search.yaml). All candidates are written
to docs/scenes_search.csv, with the digest of the weights; the table says under it what was searched. A search goes on
where it was interrupted, and leaves the record of other methods and sizes as it is.

The lowest of several noisy scores is lower than it would be on other prompts. So a candidate replaces the configured
settings only where it is better by more than chance (`Rule.level`).

Cost may count too, as a share of what direct inference costs at that size: `--most-cost 0.6` chooses among candidates
that cost no more, and `--keep 0.002` the cheapest one whose objective is at most 0.002 above that of the configured
method. experiments/scenes/pruning.yaml lists what makes ScaleCrafter cheaper:
`python -m experiments.search --space experiments/scenes/pruning.yaml --keep 0.002 --out docs/scenes_pruning.csv`.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from baselines.direct import Direct
from eval.comparisons import paired_p_value
from eval.files import write_atomically
from eval.score import as_estimate
from eval.uncertainty import Estimate
from experiments.cost.planned import PlannedRun
from experiments.cost.planning import plan_run
from experiments.results.reading import SHARES
from experiments.scenes import SEARCH_RECORD
from experiments.scoring.runs import complete_run
from experiments.setup.command_line import command
from experiments.setup.compose import compose_config
from experiments.setup.runs import Run, Workload, build_run

SPACE = Path(__file__).parent / "scenes/search.yaml"
PROMPTS_SEED, RUN_SEED = 71, 7  # tables: 1 and 0
BUDGET, LIMIT, LEVEL = 12, 32, 0.05
OBJECTIVE = ("kid_r", "pkid_r")
COST = "cost"  # of a run: planned FLOPs of an image, as a share of those of direct inference at the same size
WEIGHTS = "weights"  # digest of the model's, in eight digits
SHOWN = (WEIGHTS, "n", "kid_r", "kid_r_se", "pkid_r", "pkid_r_se", "repetition", *SHARES, COST)
CONFIGURED = "as configured"

Space = Mapping[str, Mapping[str, Mapping[str, Sequence[str]]]]
Scorer = Callable[[Sequence[str]], Mapping[str, Any]]


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


@dataclass(frozen=True)
class Rule:
    """Which candidates may be chosen, and which of them is.

    Args:
        level: a choice is better than the configured method on the same prompts at this level of significance, divided
            by the number of candidates (Bonferroni); None: any that is lower.
        most_cost: `COST` that a choice has at most.
        keep: the choice is the cheapest candidate whose objective is at most this much above the first one's, the
            configured method's; None: that with the lowest objective.
    """

    level: float | None = None
    most_cost: float | None = None
    keep: float | None = None

    @property
    def counts_cost(self) -> bool:
        return self.most_cost is not None or self.keep is not None

    def rank(self, objective: Estimate, cost: float, first: Estimate, candidates: int) -> tuple[float, ...] | None:
        """What is compared, lower first; None for a candidate that is not to be chosen."""
        if self.most_cost is not None and cost > self.most_cost:
            return None
        if self.keep is not None:
            return (cost, objective.value) if objective.value <= first.value + self.keep else None
        if self.level is not None and objective is not first:
            p = paired_p_value(*objective.minus(first), len(first.group_sizes))
            if objective.value >= first.value or p > self.level / candidates:
                return None
        return (objective.value,)


def objective_of(scores: Mapping[str, Any]) -> Estimate:
    """The sum of `OBJECTIVE`, whose jackknives leave out the same prompts: of whole images, and of crops of them."""
    parts = [as_estimate(scores, name) for name in OBJECTIVE]
    without = tuple(map(sum, zip(*(part.without for part in parts), strict=True)))
    key = " ".join(part.key for part in parts)
    return Estimate(sum(part.value for part in parts), without, parts[0].group_sizes, key)


def search(
    space: Space, method: str, resolution: str, score: Scorer, budget: int = BUDGET, rule: Rule | None = None
) -> tuple[list[str], list[dict[str, Any]]]:
    """Coordinate search for the lowest sum of `OBJECTIVE`, or what else ``rule`` says.

    Args:
        space: what to try, from `read_space`.
        method: name of the method.
        resolution: name of the size.
        score: maps overrides, beyond method and size, to scores with their jackknives, and `COST` if the rule counts
            it.
        budget: runs, the configured method's included.

    Returns:
        The best overrides, and a row for each candidate; ``chosen`` marks those overrides. No candidate that may be
        chosen: none is marked, and the overrides are empty.
    """
    stages, rule = stages_of(space, method, resolution, budget), rule or Rule()
    best: list[str] = []
    rows: list[dict[str, Any]] = []
    lowest: tuple[float, ...] | None = None
    first: Estimate | None = None
    tried = sum(len(candidates) for _, candidates in stages)
    for stage, candidates in [(CONFIGURED, [""]), *stages]:
        start = best
        for candidate in candidates:
            overrides = [*start, *shlex.split(candidate)]
            scores = score(overrides)
            objective = objective_of(scores)
            first = first or objective
            change, change_se = objective.minus(first)
            row: dict[str, Any] = {
                "method": method,
                "resolution": resolution,
                "stage": stage,
                "candidate": " ".join(overrides),
            }
            row |= {key: scores[key] for key in SHOWN if key in scores}
            rows.append(row | {"objective": objective.value, "change": change, "change_se": change_se})
            rank = rule.rank(objective, scores.get(COST, 0.0), first, tried)
            if rank is not None and (lowest is None or rank < lowest):
                lowest, best = rank, overrides
    for row in rows:
        row["chosen"] = lowest is not None and row["candidate"] == " ".join(best)
    return best, rows


def cost_of(run: Run) -> float:
    """`COST` of a run; ValueError for a method that does not say which calls it makes."""
    workload = Workload(**{field.name: getattr(run, field.name) for field in fields(Workload)})
    direct = replace(workload, method=Direct(), method_name="direct")
    flops, of_direct = (plan_run(PlannedRun(each, len(run.prompts), scored=True)).flops for each in (workload, direct))
    return flops / of_direct


def scorer(method: str, resolution: str, limit: int, overrides: Sequence[str], costs: bool = False) -> Scorer:
    """Complete runs on the prompts and seeds of the search, with their `COST` if ``costs``; ``overrides`` act on all
    of them.
    """
    fixed = [f"method={method}", f"resolution={resolution}", f"prompts.limit={limit}"]
    fixed += [f"prompts.seed={PROMPTS_SEED}", f"seed={RUN_SEED}", *overrides]

    def score(candidate: Sequence[str]) -> Mapping[str, Any]:
        run = build_run(compose_config([*fixed, *candidate]))
        scores = complete_run(run)
        assert scores is not None
        scores = scores | {WEIGHTS: run.model.digest[:8]} | ({COST: cost_of(run)} if costs else {})
        print(
            f"{method} {resolution} {' '.join(candidate) or CONFIGURED}: "
            + ", ".join(f"{name} {scores[name]:.4g}" for name in (*OBJECTIVE, *([COST] if costs else []))),
            flush=True,
        )
        return scores

    return score


def write_record(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of a search, in place of those that the file has of the same methods and sizes."""
    found = pd.DataFrame(rows).round(4)
    if path.exists():
        old = pd.read_csv(path, keep_default_na=False, dtype=str)
        done = set(zip(found["method"], found["resolution"], strict=True))
        kept = [pair not in done for pair in zip(old["method"], old["resolution"], strict=True)]
        found = pd.concat([old[kept], found], ignore_index=True)
    write_atomically(path, found.to_csv(index=False))


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
    add(
        "--level",
        type=float,
        default=LEVEL,
        help="significance of what replaces the configured settings; 1: any better",
    )
    add("--most-cost", type=float, help="share of direct inference's cost that a choice has at most")
    add("--keep", type=float, help="choose the cheapest whose objective is at most this above the configured method's")
    add("--out", type=Path, default=SEARCH_RECORD)
    add("overrides", nargs="*", help="Hydra overrides of all runs, as paths.runs=DIR")
    arguments = parser.parse_args(argv)
    rule = Rule(arguments.level if arguments.level < 1 else None, arguments.most_cost, arguments.keep)
    space = read_space(arguments.space)
    methods = arguments.methods or [method for method, stages in space.items() if stages]
    rows: list[dict[str, Any]] = []
    for method in methods:
        for resolution in arguments.resolutions:
            fixed = ["paths.runs=runs/search", *arguments.overrides]
            score = scorer(method, resolution, arguments.limit, fixed, rule.counts_cost)
            best, found = search(space, method, resolution, score, arguments.budget, rule)
            rows += found
            write_record(arguments.out, rows)
            chosen = " ".join(best) or CONFIGURED if any(row["chosen"] for row in found) else "none is cheap enough"
            print(f"# best of {len(found)} for {method} at {resolution}: {chosen}", flush=True)


if __name__ == "__main__":
    command(main)
