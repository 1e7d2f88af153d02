"""`python -m experiments.run [overrides]`: sample what is missing of a run and score it; the same for each combination
of a sweep (`-m`), or for the rows of an experiment. Running again resumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from eval.files import write_atomically
from experiments.setup.command_line import command
from experiments.setup.launch import launch


def job(config: DictConfig) -> None:
    """Complete one run, with its configuration beside it, and print its folder."""
    # Imported here because torch and diffusers take seconds: help and errors of the command line come at once.
    from experiments.results.tracking import log_run
    from experiments.scoring.runs import complete_run
    from experiments.setup.runs import build_run

    run = build_run(config)
    scores = complete_run(run)
    save_configuration(run.folder / ".hydra", config)
    if scores is not None:
        log_run(run, scores)
    print(run.folder)


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
    launch(job, arguments, fetch_weights)


if __name__ == "__main__":
    command(main)
