"""`python -m experiments.verify RUN ... [--repair]`: check run folders: every line of the manifests, every image,
features and scores. It waits for a job that is writing to the folder, and needs no model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.sampling.checking import check_images, repair_images
from experiments.sampling.manifest import whole_records
from experiments.sampling.shards import whole_run
from experiments.scoring.checking import check_scores, remove_scores
from experiments.setup.command_line import command
from experiments.setup.identity import FILE


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.verify",
        description="Check run folders. Exit code 1 if something is wrong that was not repaired.",
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="a run folder, as runs/scenes-direct-256x256-1a2b3c4d")
    add(
        "--repair",
        action="store_true",
        help="make one manifest of the valid lines, set aside images without one, remove scores of other images",
    )
    add("--no-locks", action="store_true", help="on a file system without them, where nobody may write meanwhile")
    return parser


def check_run(folder: Path) -> list[str]:
    """All problems of a run folder, a line each."""
    scores = {path.relative_to(folder): problem for path, problem in check_scores(folder).items()}
    return [*check_images(folder), *(f"{path}: {problem}" for path, problem in scores.items())]


def repair_run(folder: Path) -> None:
    """Mend what can be mended without generating or scoring."""
    repair_images(folder)
    remove_scores(folder)


def main(arguments: Sequence[str]) -> None:
    """Print the problems of each run folder."""
    options = build_parser().parse_args(arguments)
    remaining = False
    for folder in options.runs:
        if not (folder / "images").is_dir() and not (folder / FILE).is_file():
            raise FileNotFoundError(f"{folder} is no run folder: it has neither images nor {FILE}")
        with whole_run(folder, locks=not options.no_locks):
            problems = check_run(folder)
            if problems and options.repair:
                repair_run(folder)
                problems, repaired = check_run(folder), problems
                print(*(f"{folder}/{line}" for line in repaired), sep="\n")
                print(f"{folder}: repaired; the command that made this run makes again what is gone")
            print(*(f"{folder}/{line}" for line in problems), sep="\n", end="\n" if problems else "")
            print(f"{folder}: {len(whole_records(folder))} images are whole, {len(problems)} problems")
        remaining = remaining or bool(problems)
    if remaining:
        sys.exit(1)


if __name__ == "__main__":
    command(main)
