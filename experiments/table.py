"""`python -m experiments.table [experiment=NAME] [overrides]`: the table, charts and galleries of an experiment from
whatever run folders are there, without weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.results.artefacts import write_results
from experiments.setup.command_line import command, overrides_of
from experiments.setup.grid import named_experiment, read_grid


def main(arguments: Sequence[str]) -> None:
    """Write and print the table; name the runs that are not finished."""
    overrides = overrides_of(arguments, "experiments.table", str(__doc__))
    grid = read_grid(named_experiment(overrides))
    missing = write_results(grid)
    if missing:
        print(f"{len(missing)} of {len(grid.rows)} runs are not finished:", *missing, sep="\n  ")


if __name__ == "__main__":
    command(main)
