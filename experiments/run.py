"""`python -m experiments.run [overrides]`: draw one cell, then score it. `-m` sweeps, a job for each combination of
what is listed, or for each cell of an experiment. Running again resumes; `plan=true` says what it would take.

python -m experiments.run model=scenes method=scalecrafter resolution=x4 prompts.limit=64
python -m experiments.run -m experiment=ablate_tau
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.cost.planning import plan
from experiments.results.tracking import log_cell
from experiments.sampling.generate import draw_cell, is_drawn
from experiments.scoring.runs import check_scorable, score_cell
from experiments.setup.command_line import command
from experiments.setup.config import CONF, asks_for_plan, base_overrides, build_cell, compose_config
from experiments.setup.failures import outcome, write_failure
from experiments.setup.grid import cell_line, read_experiment


def run_cell(overrides: Sequence[str]) -> Path:
    """Draw the cell of a command line, then the base-size samples that its scores need, and score it. Of a cell that
    is drawn in shares the last one to be finished is scored.
    """
    cell = build_cell(compose_config(overrides))
    if cell.metrics.extractor is None:
        return draw_cell(cell)
    check_scorable(cell)
    base = build_cell(compose_config(base_overrides(overrides, len(cell.prompts))))
    draw_cell(cell)
    if base.folder != cell.folder:
        draw_cell(base)
    if is_drawn(cell) and is_drawn(base):
        log_cell(cell, score_cell(cell, base.folder))
    return cell.folder


def single(overrides: Sequence[str]) -> None:
    """One cell, or the plan of it, or of all cells of an experiment."""
    config = compose_config(overrides)
    if not asks_for_plan(config):
        print(run_cell(cell_line(overrides)))
    elif "experiment" in config and config.cell is None:
        print(plan(read_experiment(overrides).lines))
    else:
        print(plan([cell_line(overrides)]))


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def job(config: DictConfig) -> None:
    """One job of a sweep. That it fails is recorded, so that the others go on."""
    overrides = list(HydraConfig.get().overrides.task)
    try:
        single(overrides)
    except (ValueError, OSError) as error:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise
        write_failure(Path(HydraConfig.get().runtime.output_dir), overrides, error)


def sweep(arguments: Sequence[str]) -> None:
    """What Hydra's own options ask for. Of `experiment=NAME` each cell becomes a job."""
    cells: list[str] = []
    chosen = [argument for argument in arguments if argument.startswith("experiment")]
    named = any(argument.startswith("cell=") for argument in arguments)
    if chosen and not named and {"-m", "--multirun"} & set(arguments):
        cells = [f"cell=range({len(read_experiment(chosen).lines)})"]
    sys.argv[1:] = [*arguments, *cells]
    job()
    if outcome.failed:
        count = f"{len(outcome.failed)} of {outcome.jobs} jobs failed"
        raise ValueError(f"{count}, the others are complete: {'; '.join(outcome.failed)}")


def main(arguments: Sequence[str]) -> None:
    """Hydra where there are options, else one cell."""
    if any(argument.startswith("-") for argument in arguments):
        sweep(arguments)
    else:
        single(arguments)


if __name__ == "__main__":
    command(main)
