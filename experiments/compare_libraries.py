"""`python -m experiments.compare_libraries --images DIR --reference DIR`: FID and KID of two folders by this project
and by torch-fidelity, torchmetrics and clean-fid, with the relative differences.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.scoring.libraries import Comparison, compare_libraries, inception_at_hand
from experiments.setup.command_line import command


def markdown(found: Sequence[Comparison]) -> str:
    """The comparisons as a table."""
    lines = ["| library | metric | theirs | ours | relative difference |", "|---|---|---:|---:|---:|"]
    lines += [f"| {c.library} | {c.metric} | {c.theirs:.8g} | {c.ours:.8g} | {c.difference:.1e} |" for c in found]
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.compare_libraries",
        description="FID and KID of two folders by this project and by the libraries themselves. Downloads nothing: "
        "without Inception weights at hand, random ones of the true architecture are used.",
    )
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="generated images: a folder or a run")
    add("--reference", type=Path, required=True, metavar="DIR", help="real images: a folder or a run")
    add("--weights", type=Path, metavar="FILE", help="Inception weights (default: torch's cache, else random ones)")
    add("--tolerance", type=float, default=1e-3, help="largest relative difference (default: 1e-3); beyond it exit 2")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Print the table; ValueError if a difference exceeds the tolerance."""
    options = build_parser().parse_args(arguments)
    with inception_at_hand(options.weights) as (weights, description):
        found = compare_libraries(options.images, options.reference, weights)
    print(f"{markdown(found)}\n\nInception: {description}")
    if beyond := [f"{c.metric} of {c.library}" for c in found if not c.difference <= options.tolerance]:
        raise ValueError(f"differences above {options.tolerance:g}: {', '.join(beyond)}")


if __name__ == "__main__":
    command(main)
