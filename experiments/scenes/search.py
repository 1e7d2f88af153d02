"""`python -m experiments.scenes.search`: the recorded search behind scalecrafter/settings/scenes_*.yaml.

Candidates are compared on prompts and seeds that no table uses. Every candidate is a whole cell, scored like any
other; the outcome is written to ``docs/scenes_settings.csv``, best first for each resolution.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import yaml

from experiments.run import run_cell
from experiments.table import read_metrics

PROMPTS_SEED, RUN_SEED = 71, 7
SD15_X16 = {
    "down_blocks.1+s": 2,
    "down_blocks.2+s": 3,
    "down_blocks.3": 4,
    "mid_block": 4,
    "up_blocks.0+s": 4,
    "up_blocks.1+s": 3,
    "up_blocks.2+s": 2,
}
INNER = ("down_blocks.2+s", "down_blocks.3", "mid_block", "up_blocks.0+s", "up_blocks.1+s")
MIDDLE = ("down_blocks.1+s", *INNER, "up_blocks.2+s")
ALL = ("down_blocks.0+s", *MIDDLE, "up_blocks.3")


def candidates(resolution: str) -> Iterator[tuple[str, dict[str, object]]]:
    """(name, settings as in a YAML file) for one resolution: which levels, which factor, how long."""
    side = {"x4": 2, "x16": 4}[resolution]
    for tau in (20, 30, 40, 46, 50):
        yield f"levels 1-3, d={side}, tau={tau}", {"tau": tau, "dilation": dict.fromkeys(MIDDLE, side)}
    yield f"levels 2-3, d={side}, tau=40", {"tau": 40, "dilation": dict.fromkeys(INNER, side)}
    yield f"all levels, d={side}, tau=40", {"tau": 40, "dilation": dict.fromkeys(ALL, side)}
    if resolution == "x16":
        yield "sd15_2048, progressive, tau=35", {"tau": 35, "progressive": True, "dilation": SD15_X16}
        yield "sd15_2048, tau=44", {"tau": 44, "dilation": SD15_X16}
        yield "levels 1-3, d=3, tau=44", {"tau": 44, "dilation": dict.fromkeys(MIDDLE, 3)}
        yield (
            "levels 1-3, d=4, progressive, tau=46",
            {"tau": 46, "progressive": True, "dilation": dict.fromkeys(MIDDLE, 4)},
        )


def try_candidate(
    resolution: str, name: str, settings: dict[str, object], limit: int, runs: Path
) -> dict[str, object]:
    path = runs / "candidates" / f"{resolution} {name}.yaml".replace(" ", "_").replace(",", "").replace("=", "")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    overrides = [f"scalecrafter.settings='{path}'", f"resolution={resolution}", f"prompts.limit={limit}"]
    overrides += [f"prompts.seed={PROMPTS_SEED}", f"seed={RUN_SEED}", f"paths.runs={runs}"]
    metrics = read_metrics(run_cell(overrides))
    shown = ("n", "fid_r", "fid_r_se", "fid_b", "fid_b_se", "object_accuracy", "colour_accuracy")
    return {"resolution": resolution, "settings": name} | {key: round(metrics[key], 4) for key in shown}


def main() -> None:
    parser = argparse.ArgumentParser(description="Search for ScaleCrafter's settings on the scenes model.")
    parser.add_argument("--resolutions", nargs="+", choices=("x4", "x16"), default=["x4", "x16"])
    parser.add_argument("--limit", type=int, default=32, help="prompts for each candidate")
    parser.add_argument("--runs", type=Path, default=Path("runs/search"))
    parser.add_argument("--out", type=Path, default=Path("docs/scenes_settings.csv"))
    arguments = parser.parse_args()
    rows = []
    for resolution in arguments.resolutions:
        for name, settings in candidates(resolution):
            rows.append(try_candidate(resolution, name, settings, arguments.limit, arguments.runs))
            print(rows[-1], flush=True)
            table = pd.DataFrame(rows).sort_values(["resolution", "fid_r"], ascending=[False, True])
            table.to_csv(arguments.out, index=False)
    print(table.to_markdown(index=False))


if __name__ == "__main__":
    main()
