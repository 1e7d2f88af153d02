"""Base samples as jobs of their own. All runs of a model are compared with the same ones: where jobs run side by side,
whoever needs them would wait for the job that generates them, and hold a GPU meanwhile.
"""

from __future__ import annotations

from pathlib import Path

from experiments.sampling.generate import is_complete
from experiments.setup.compose import compose_config
from experiments.setup.grid import Grid
from experiments.setup.runs import base_run, build_run


def base_jobs(grid: Grid) -> list[list[str]]:
    """Command lines of runs whose base samples (`base_run`) the rows of a grid need and that are not complete: one for
    each model, prompts and seed, with the largest number of prompts, and with all shards of the rows.
    """
    lines: dict[Path, tuple[int, tuple[str, ...]]] = {}
    shards: dict[Path, dict[str, None]] = {}
    for row in grid.rows:
        try:
            run = build_run(compose_config(row.overrides))
        except (ValueError, OSError):
            continue  # its own job says why
        if run.metrics.extractor is None or is_complete(base := base_run(run)):
            continue
        if len(run.prompts) > lines.get(base.folder, (0, ()))[0]:
            lines[base.folder] = (len(run.prompts), row.overrides)
        own = dict.fromkeys(line for line in row.overrides if line.startswith("shard="))
        shards[base.folder] = shards.get(base.folder, {}) | own
    found = []
    for folder, (_, overrides) in lines.items():
        parts = [line.removeprefix("shard=") for line in shards[folder]]
        line = [override for override in overrides if not override.startswith("shard=")]
        found.append([*line, *([f"shard={','.join(parts)}"] if parts else [])])
    return found
