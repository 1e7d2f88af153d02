"""`python -m experiments.plan [experiment=NAME] [overrides]`: what runs would cost: images, U-Net evaluations, FLOPs,
peak memory, disk and hours on this machine. Nothing is sampled, and no weights are needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.cost.planning import plan_text
from experiments.setup.command_line import command, overrides_of
from experiments.setup.grid import read_grid


def main(arguments: Sequence[str]) -> None:
    overrides = overrides_of(arguments, "experiments.plan", str(__doc__))
    print(plan_text([row.overrides for row in read_grid(overrides).rows]))


if __name__ == "__main__":
    command(main)
