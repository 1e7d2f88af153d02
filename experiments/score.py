"""`python -m experiments.score [overrides]`: score finished runs again, without loading a model: one run, a sweep, or
the rows of an experiment.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from omegaconf import DictConfig

from experiments.setup.command_line import command
from experiments.setup.launch import launch


def job(config: DictConfig) -> None:
    """Score the finished run of a configuration; it is found by its recorded identity, with or without its weights."""
    # Imported here because torch and diffusers take seconds: help and errors of the command line come at once.
    from experiments.results.reading import recorded_run
    from experiments.results.tracking import tracked
    from experiments.scoring.runs import check_scorable, score_run
    from experiments.setup.architecture import open_architecture
    from experiments.setup.runs import build_run

    run = recorded_run(build_run(config, open_architecture))
    with tracked(run) as tracker:
        check_scorable(run)
        scores = score_run(run)
        tracker.send(scores)
    print(json.dumps({key: value for key, value in scores.items() if not key.endswith("_jackknife")}, indent=2))


def main(arguments: Sequence[str]) -> None:
    launch(job, arguments)


if __name__ == "__main__":
    command(main)
