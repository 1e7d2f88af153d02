"""`python -m experiments.search`: the recorded search behind experiments/scenes/settings.

Stage by stage one part of the method is varied around the best settings so far. Candidates are compared by the sum of
fid_r and fid_b on prompts and seeds that no table uses; each is a complete run, scored like any other. All are written
to ``docs/scenes_settings.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from eval.files import write_atomically
from experiments.scoring.runs import complete_run
from experiments.setup.command_line import command
from experiments.setup.compose import compose_config
from experiments.setup.runs import build_run

PROMPTS_SEED, RUN_SEED = 71, 7
SIDE = {"x4": 2, "x16": 4}
INNER = ("down_blocks.2+s", "down_blocks.3", "mid_block", "up_blocks.0+s", "up_blocks.1+s")
MIDDLE = ("down_blocks.1+s", *INNER, "up_blocks.2+s")
SD15_X16 = dict(zip(MIDDLE, (2, 3, 4, 4, 4, 3, 2), strict=True))

Settings = dict[str, Any]


def stages(resolution: str) -> list[tuple[str, dict[str, Settings]]]:
    """(stage, {candidate: what it changes of the best before this stage})."""
    d = SIDE[resolution]
    inner, middle = dict.fromkeys(INNER, d), dict.fromkeys(MIDDLE, d)
    layers: dict[str, Settings] = {
        f"levels 1-3 by {d}": {"tau": 40, "dilation": middle},
        f"levels 2-3 by {d}": {"tau": 40, "dilation": inner},
    }
    if resolution == "x16":
        layers["levels 1-3 by 3"] = {"tau": 40, "dilation": dict.fromkeys(MIDDLE, 3)}
        layers["as sd15_x16"] = {"tau": 40, "dilation": SD15_X16}
    found: list[tuple[str, dict[str, Settings]]] = [
        ("layers", layers),
        ("window", {f"tau {tau}": {"tau": tau} for tau in (25, 32, 46)}),
    ]
    return found if resolution == "x4" else [*found, *stages_of_the_largest_size(inner)]


def stages_of_the_largest_size(inner: Settings) -> list[tuple[str, dict[str, Settings]]]:
    """What only matters at 16 times the area: progressive factors, dispersion and noise damping."""
    dispersed = {"dispersed": list(MIDDLE), "dispersed_tau": 50}
    damped = {"noise_damped_dilation": inner, "noise_damped_tau": 50}
    return [
        ("progressive", {"progressive": {"progressive": True}}),
        (
            "dispersion",
            {
                "levels 1-3 dispersed": dispersed,
                "levels 2-3 dispersed": dispersed | {"dispersed": list(INNER)},
                "levels 1-3 dispersed, 20 steps": dispersed | {"dispersed_tau": 20},
            },
        ),
        (
            "guidance",
            {
                "damped by levels 2-3": damped,
                "damped by levels 2-3, 20 steps": damped | {"noise_damped_tau": 20},
                "damped by the plain model, 20 steps": {"noise_damped_dilation": {}, "noise_damped_tau": 20},
            },
        ),
        (
            "window of the whole method",
            {
                "tau 40": {"tau": 40},
                "tau 40, damped 40 steps": {"tau": 40, "noise_damped_tau": 40},
            },
        ),
    ]


def score_candidate(resolution: str, settings: Settings, limit: int, runs: Path) -> dict[str, Any]:
    path = runs / f"candidate_{resolution}.yaml"
    write_atomically(path, yaml.safe_dump(settings))
    overrides = [f"scalecrafter.settings='{path}'", f"resolution={resolution}", f"prompts.limit={limit}"]
    overrides += [f"prompts.seed={PROMPTS_SEED}", f"seed={RUN_SEED}", f"paths.runs={runs}"]
    scores = complete_run(build_run(compose_config(overrides)))
    assert scores is not None
    return scores


def search(resolution: str, limit: int, runs: Path) -> tuple[Settings, list[dict[str, Any]]]:
    """The best settings found, and a row per candidate."""
    shown = ("n", "fid_r", "fid_r_se", "fid_b", "fid_b_se", "repetition", "object_accuracy", "colour_accuracy")
    best: Settings = {}
    rows: list[dict[str, Any]] = []
    lowest = float("inf")
    for stage, changes in stages(resolution):
        start = dict(best)
        for name, change in changes.items():
            settings = start | change
            if "dispersed" in settings:
                settings["dispersed"] = [group for group in settings["dispersed"] if group in settings["dilation"]]
            metrics = score_candidate(resolution, settings, limit, runs)
            row = {"resolution": resolution, "stage": stage, "candidate": name}
            rows.append(row | {key: round(metrics[key], 4) for key in shown})
            print(rows[-1], flush=True)
            total = metrics["fid_r"] + metrics["fid_b"]
            if total < lowest:
                lowest, best = total, settings
    return best, rows


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.search", description="Search for ScaleCrafter's settings on the scenes model."
    )
    parser.add_argument("--resolutions", nargs="+", choices=tuple(SIDE), default=list(SIDE))
    parser.add_argument("--limit", type=int, default=32, help="prompts per candidate")
    parser.add_argument("--runs", type=Path, default=Path("runs/search"))
    parser.add_argument("--out", type=Path, default=Path("docs/scenes_settings.csv"))
    arguments = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    for resolution in arguments.resolutions:
        best, found = search(resolution, arguments.limit, arguments.runs)
        rows += found
        write_atomically(arguments.out, pd.DataFrame(rows).to_csv(index=False))
        print(f"# best at {resolution}\n{yaml.safe_dump(best, sort_keys=False)}", flush=True)


if __name__ == "__main__":
    command(main)
