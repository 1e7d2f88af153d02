"""Which images command lines ask for, each once: runs as far as their cost depends on them, without any weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from experiments.prompts import load_prompts
from experiments.setup.architecture import open_architecture
from experiments.setup.compose import compose_config, plain_values
from experiments.setup.runs import Workload, base_workload, build_workload, resolve_limit
from scalecrafter.pipeline import check_size, check_unet


@dataclass(frozen=True)
class PlannedRun:
    """A run as far as its cost depends on it: without weights and without the texts of its prompts.

    Args:
        source: all that decides which images belong to it besides the workload: the prompts without their number, and
            the seed.
    """

    workload: Workload
    images: int
    scored: bool
    source: dict[str, Any] = field(default_factory=dict)

    def continues(self, other: PlannedRun) -> bool:
        """Whether one of the two has the first images of the other."""
        one, two = self.workload.method, other.workload.method
        if one != two and (type(one) is not type(two) or vars(one) != vars(two)):  # not all methods are dataclasses
            return False
        like = replace(self.workload, method=two, batch_size=other.workload.batch_size)
        return like == other.workload and self.source == other.source


def read_planned(overrides: Sequence[str]) -> PlannedRun:
    """The run of a command line; a manifest of prompts may be missing if their number is given."""
    config = compose_config(overrides)
    values = plain_values(config)
    workload = build_workload(config, values, open_architecture)
    check_unet(workload.model.shape)
    check_size(workload.model.shape, workload.height, workload.width)
    limit = resolve_limit(values["prompts"]["limit"], workload.height, workload.width)
    images = len(load_prompts(values["prompts"])) if limit is None else limit
    source = {"prompts": values["prompts"] | {"limit": None}, "seed": values["seed"]}
    return PlannedRun(workload, images, values["metrics"]["extractor"] is not None, source)


def planned_runs(lines: Sequence[Sequence[str]]) -> tuple[list[PlannedRun], list[str]]:
    """The runs of command lines, after the base samples that their scores need, each image once; and why others cannot
    be built.
    """
    found: list[PlannedRun] = []
    refused: dict[str, None] = {}
    for line in lines:
        try:
            found.append(read_planned(line))
        except (ValueError, OSError) as error:
            refused[str(error)] = None
    base = [replace(run, workload=base_workload(run.workload), scored=False) for run in found if run.scored]
    merged: list[PlannedRun] = []
    for run in [*base, *found]:
        same = next((i for i, other in enumerate(merged) if run.continues(other)), None)
        if same is None:
            merged.append(run)
        elif run.images > merged[same].images:
            merged[same] = run
    return merged, list(refused)
