"""`python -m experiments.reproduce [experiment=NAME] [overrides]`: all cells of an experiment, one after the other,
its table and pictures. What is drawn and scored already is not done again; a cell that fails does not stop the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.cost.planning import plan
from experiments.results.plots import draw_pictures
from experiments.results.score_table import collect, write_table
from experiments.results.tracking import log_table
from experiments.run import run_cell
from experiments.setup.command_line import command
from experiments.setup.config import asks_for_plan, compose_config
from experiments.setup.grid import read_experiment


def reproduce(overrides: Sequence[str]) -> None:
    """Draw, score, tabulate."""
    experiment = read_experiment(overrides)
    config = compose_config(experiment.lines[0])
    if config.share is not None:
        raise ValueError("shares are drawn by python -m experiments.run (-m experiment=NAME share=0/2,1/2)")
    if asks_for_plan(config):
        print(plan(experiment.lines))
        return
    rows = experiment.rows()
    done, failed = [], []
    for line, row in zip(experiment.lines, rows, strict=True):
        try:
            run_cell(line)
        except (ValueError, OSError) as error:
            failed.append(f"{row.cell.folder.name}: {' '.join(str(error).split())}")
        else:
            done.append(row)
    if done:
        table = collect(done)
        print("\n" + write_table(table, experiment.results, experiment.name))
        pictures = draw_pictures(experiment.name, table, experiment.plot, experiment.runs, experiment.results)
        log_table(table, pictures, experiment.name, done[0].cell)
        for path in [*sorted(experiment.results.glob(f"{experiment.name}.*")), *pictures]:
            print(path)
    if failed:
        raise ValueError(f"{len(failed)} of {len(rows)} cells failed, the others are complete: {'; '.join(failed)}")


if __name__ == "__main__":
    command(reproduce)
