"""A case of docs/pipelines.md: one image, and a row of its table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scalecrafter import FreeU, Settings
from tests.scalecrafter.changes import schedulers

# Whole factors, which torch can dilate by, in layers of all small U-Nets, and guidance that is damped in every step.
FIRST, SECOND = "mid_block.resnets.0.conv1", "down_blocks.0.downsamplers.0.conv"
PLAIN = Settings({FIRST: 3, "mid_block.resnets.1.conv2": 2, SECOND: 2, "up_blocks.0.resnets.0.conv1": (2, 1)}, tau=50)
DAMPED = replace(PLAIN, noise_damped_dilation={FIRST: 2}, noise_damped_tau=50)
EARLY = replace(DAMPED, tau=25, noise_damped_tau=25)
EVERYTHING = replace(
    DAMPED,
    dilation={**PLAIN.dilation, FIRST: 2.5, "conv_in": 1.5},
    dispersed=(FIRST, SECOND),
    dispersed_tau=50,
    freeu=FreeU(1.2, 1.4, 0.9, 0.2),
)


@dataclass(frozen=True)
class Case:
    """One image, drawn with the method and with the explicit form.

    Args:
        name: of the case within its row.
        kind: of the pipeline, see `tests.scalecrafter.small`.
        call: arguments of the pipeline's call besides `inputs_of`.
        change: to the pipeline; it applies to the explicit form too.
        enabled_first: whether the method is enabled before the change.
        harmless: change that must not change the image: the explicit form is drawn without it.
        scheduler: configuration -> scheduler.
        families: that it is drawn for.
        guided: whether there is guidance to be damped.
        acts: whether the sampling enters a window.
        error: of a ValueError that is raised instead, or "".
    """

    name: str
    kind: str = "text"
    settings: Settings = DAMPED
    call: Mapping[str, Any] = field(default_factory=dict)
    change: Callable[[Any], Any] | None = None
    enabled_first: bool = False
    harmless: Callable[[Any], Any] | None = None
    scheduler: Callable[[Any], Any] | None = None
    families: tuple[str, ...] = ("sd", "sdxl")
    guided: bool = True
    acts: bool = True
    error: str = ""


@dataclass(frozen=True)
class Row:
    """One row of the table: a cell says "works" or "error" because all cases of its families do, or nothing."""

    what: str
    cases: tuple[Case, ...]
    notes: str = ""

    def cell(self, families: tuple[str, ...]) -> str:
        outcomes = {"error" if case.error else "works" for case in self.cases if set(case.families) & set(families)}
        if len(outcomes) > 1:
            raise ValueError(f"{self.what}: some cases work and some raise, which is more than one row can say")
        return "".join(outcomes)


def cases(*names: str, **options: Any) -> tuple[Case, ...]:
    """One case for each kind of pipeline."""
    return tuple(Case(name, kind=name, **options) for name in names)


def with_every_scheduler() -> tuple[Case, ...]:
    """Each with a pipeline of either family, of all kinds in turn."""
    kinds, made = ("text", "img2img", "inpaint", "controlnet"), []
    for index, (name, scheduler) in enumerate(schedulers().items()):
        for shift, family in enumerate(("sd", "sdxl")):
            kind = kinds[(index + shift) % len(kinds)]
            steps = {"num_inference_steps": 3}
            made.append(Case(name, kind, EARLY, steps, scheduler=scheduler, families=(family,)))
    return tuple(made)
