"""`python -m experiments.report [overrides]`: ``<results>/report.html``, tables, charts and images of all finished
experiments in one file, and ``<results>/ablations.md`` if an ablation is among them. It reads results and run folders
and samples nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from eval.files import write_atomically
from experiments.results.ablations import ablations_page
from experiments.results.html import TITLES, render, section
from experiments.results.tracking import log_report
from experiments.setup import schema
from experiments.setup.command_line import command, overrides_of
from experiments.setup.compose import compose_config
from experiments.setup.grid import read_grid


def main(arguments: Sequence[str]) -> None:
    """Write the page of all experiments in conf/experiment that have results, the main table first."""
    overrides = overrides_of(arguments, "experiments.report", str(__doc__))
    sections, missing = [], []
    config = compose_config(overrides)
    results = Path(config.paths.results)
    files = sorted((schema.CONF / "experiment").glob("*.yaml"))
    for path in sorted(files, key=lambda path: (path.stem.startswith("ablate_"), path.stem not in TITLES)):
        if not may_be_finished(path, results, overrides):
            missing.append(path.stem)
            continue
        grid = read_grid([*overrides, f"experiment={path.stem}"])
        if (results / f"{grid.name}.csv").is_file():
            sections.append(section(path, grid.name, grid.plot, grid.runs, results))
        else:
            missing.append(path.stem)
    if not sections:
        raise ValueError(f"no finished table in {results}: run make reproduce-table first, or set paths.results")
    page = results / "report.html"
    write_atomically(page, render(sections, missing))
    print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")
    written = [page]
    if any(not part["main"] for part in sections):
        write_atomically(results / "ablations.md", ablations_page(results, Path(config.paths.runs)))
        written.append(results / "ablations.md")
        print(written[-1])
    log_report(written, Path(config.paths.runs), config.logger)


def may_be_finished(experiment: Path, results: Path, overrides: Sequence[str]) -> bool:
    """Whether a table has the name of this experiment, whose interpolations may be anything: composing all of them
    takes Hydra seconds.
    """
    if any(line.lstrip("+").startswith("experiment.name=") for line in overrides):
        return True
    name = yaml.safe_load(experiment.read_text(encoding="utf-8"))["experiment"]["name"]
    return any(results.glob(re.sub(r"\$\{[^}]*\}", "*", name) + ".csv"))


if __name__ == "__main__":
    command(main)
