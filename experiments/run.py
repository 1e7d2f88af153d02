"""`python -m experiments.run [overrides]`: sample what is missing of a run and score it; the same for each combination
of a sweep (`-m`), or for the rows of an experiment. Running again resumes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from eval.files import write_atomically
from experiments.setup.command_line import command
from experiments.setup.grid import Grid, read_grid
from experiments.setup.launch import JobsFailed, Preparation, checked_configs, launch, only_overrides

log = logging.getLogger(__name__)


def job(config: DictConfig) -> None:
    """Complete one run, with its configuration beside it, and print its folder."""
    # Imported here because torch and diffusers take seconds: help and errors of the command line come at once.
    from experiments.results.tracking import tracked
    from experiments.sampling.generate import is_complete
    from experiments.scoring.runs import complete_run
    from experiments.setup.runs import build_run

    run = build_run(config)
    with tracked(run) as tracker:
        scores = complete_run(run, tracker.progress)
        save_configuration(run.folder / ".hydra", config)
        if is_complete(run) and not run.apart:
            tracker.send(scores)
    print(run.folder)


def base_job(config: DictConfig) -> None:
    """Complete the base samples of a run, and print their folder."""
    from experiments.sampling.generate import generate_run
    from experiments.setup.runs import base_run, build_run

    print(generate_run(base_run(build_run(config))))


def launch_runs(arguments: Sequence[str]) -> Grid | None:
    """`launch` `job` for all rows. Where they run side by side, the base samples that they share come first."""
    overrides = only_overrides(arguments)
    prepare: Preparation | None = fetch_weights
    if overrides is not None and (grid := read_grid(overrides)).side_by_side and len(grid.rows) > 1:
        from experiments.sampling.base_jobs import base_jobs

        fetch_weights(checked_configs(grid), overrides)
        prepare = None
        for line in base_jobs(grid):
            try:
                launch(base_job, ["-m", *line])
            except JobsFailed as error:  # the jobs that need them try again, and fail each with its own record
                log.warning("base samples: %s", error)
    return launch(job, arguments, prepare)


def save_configuration(folder: Path, config: DictConfig) -> None:
    """Write the resolved configuration, the overrides, and where the logs of the latest job are."""
    write_atomically(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    if HydraConfig.initialized():
        write_atomically(folder / "overrides.yaml", OmegaConf.to_yaml(HydraConfig.get().overrides.task))
        write_atomically(folder / "job.txt", f"{HydraConfig.get().runtime.output_dir}\n")


def fetch_weights(configs: Sequence[DictConfig], overrides: Sequence[str]) -> None:
    """Fetch what all runs lack, or say at once what is missing."""
    from experiments.fetch.required import fetch_missing

    fetch_missing(configs, overrides)


def main(arguments: Sequence[str]) -> None:
    launch_runs(arguments)


if __name__ == "__main__":
    command(main)
