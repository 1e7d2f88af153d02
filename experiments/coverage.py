"""`python -m experiments.coverage`: how often the published 95% intervals hold the truth, on rendered scenes.

A set of real scenes is scored against another one too: its KID should be within two standard errors of zero.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from eval.files import write_atomically
from experiments.scenes.rendered import renderer_digest
from experiments.scenes.scene_counter import SceneCounter
from experiments.scenes.scene_features import SceneFeatures
from experiments.scoring.coverage import Sizes, measure_coverage
from experiments.scoring.scene_sets import COMBINATIONS, METHODS, render_pool
from experiments.setup.command_line import command


def markdown(rows: Sequence[dict[str, Any]], repetitions: int) -> str:
    """The measured coverage as a table, with what its columns mean."""
    shown = pd.DataFrame(
        {
            "scenes": row["design"],
            "score": row["score"],
            "mean": f"{row['value']:.4f}",
            "truth": f"{row['truth']:.4f}",
            "coverage": f"{row['coverage']:.0%}",
            "over references": f"{row['coverage_over_references']:.0%}",
            "within 2 se": f"{row['within_two_se']:.0%}",
            "se / true error": f"{row['se_ratio']:.2f}",
        }
        for row in rows
    )
    return (
        f"{shown.to_markdown(index=False, disable_numparse=True)}\n\n"
        f"{repetitions} repetitions. coverage: nominal 95% intervals that hold the mean score of fresh sets against "
        "the same reference;\nover references: against any reference. X% repeat: that share of images shows four "
        f"copies; difference: {list(METHODS)[1]} minus {list(METHODS)[0]}, paired."
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.coverage",
        description="Measure the coverage of the published intervals on rendered scenes.",
    )
    add = parser.add_argument
    add("--repetitions", type=int, default=100)
    add("--images", type=int, default=64, metavar="N", help="images of a set (default: 64)")
    add("--reference", type=int, default=512, metavar="M", help="images of a reference (default: 512)")
    add("--fresh", type=int, default=100, metavar="SETS", help="fresh sets that estimate each truth (default: 100)")
    add("--pool", type=int, default=28 * COMBINATIONS, metavar="SCENES", help="rendered scenes (default: 4032)")
    add("--side", type=int, default=128, metavar="PIXELS", help="of the square images (default: 128)")
    add("--seed", type=int, default=0)
    add("--cache", type=Path, default=Path("runs/.cache/features"), metavar="DIR")
    add("--results", type=Path, default=Path("results"), metavar="DIR", help="for coverage.json and coverage.md")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Measure, write both files and print the table."""
    options = build_parser().parse_args(arguments)
    if options.repetitions < 2 or options.fresh < 2:
        raise ValueError("coverage needs at least 2 repetitions and 2 fresh sets")
    sizes = Sizes(options.images, options.reference, options.fresh)
    pool = render_pool(options.pool, options.side, options.cache)
    rows = measure_coverage(pool, options.repetitions, sizes, options.seed)
    record = {
        "repetitions": options.repetitions,
        "sizes": asdict(sizes),
        "pool": options.pool,
        "side": options.side,
        "seed": options.seed,
        "renderer_sha256": renderer_digest(),
        "features_sha256": SceneFeatures().digest,
        "repetition_sha256": SceneCounter().digest,
        "rows": rows,
    }
    text = markdown(rows, options.repetitions)
    write_atomically(options.results / "coverage.json", json.dumps(record, indent=2) + "\n")
    write_atomically(options.results / "coverage.md", text + "\n")
    print(f"{text}\n\n{options.results / 'coverage.json'}")


if __name__ == "__main__":
    command(main)
