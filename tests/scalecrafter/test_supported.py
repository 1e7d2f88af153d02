"""Every case of docs/pipelines.md draws an image, which is compared with the explicit form, or raises its error."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest

import scalecrafter
from experiments.scenes.model import build_scheduler
from scalecrafter.patching import replaced_attribute
from tests.scalecrafter.by_hand import by_hand
from tests.scalecrafter.changes import schedulers
from tests.scalecrafter.small import draw, small_pipeline
from tests.scalecrafter.supported import COLUMNS, DOCUMENT, ROWS, with_table

SECOND_FAMILIES = {(name, ("sdxl", "sd")[index % 2]) for index, name in enumerate(schedulers())}


def by_default(number, row, case, family):
    """The first row's cases are drawn by all families, the others by one of them in turn. Compiling takes seconds: by
    default it is done in test_graphs alone.
    """
    if case.name.startswith("compiled") or (case.name, family) in SECOND_FAMILIES:
        return False
    return row is ROWS[0] or family == case.families[number % len(case.families)]


CASES = [
    pytest.param(
        case,
        family,
        id="-".join(dict.fromkeys((case.kind, case.name, family))),
        marks=() if by_default(number, row, case, family) else pytest.mark.slow,
    )
    for number, (row, case) in enumerate((row, case) for row in ROWS for case in row.cases)
    for family in case.families
]
unchanged = cache(small_pipeline)  # for cases that leave nothing behind


@cache
def scheduler_of(make):
    return make(build_scheduler().config)


def prepared(case, family, *changes, fresh=False):
    if not any(changes) and not fresh:
        return unchanged(case.kind, family)
    pipe = small_pipeline(case.kind, family)
    for change in filter(None, changes):
        change(pipe)
    return pipe


def with_scheduler(case, pipe):
    return replaced_attribute(pipe, "scheduler", scheduler_of(case.scheduler)) if case.scheduler else nullcontext()


def drawn_by_hand(case, family):
    pipe = prepared(case, family, case.change)
    with with_scheduler(case, pipe), by_hand(pipe, case.settings, guided=case.guided) as layers:
        images = draw(pipe, case.kind, family, **case.call)
    assert any(layers) == case.acts  # whether layers were changed in any call
    return images


def drawn(case, family):
    later = case.change if case.enabled_first else None
    pipe = prepared(case, family, None if later else case.change, case.harmless, fresh=later is not None)
    with with_scheduler(case, pipe), scalecrafter.enable(pipe, height=64, width=64, settings=case.settings):
        if later:
            later(pipe)
        images = draw(pipe, case.kind, family, **case.call)
    assert not any("_conv_forward" in vars(module) for module in pipe.unet.modules())
    return images


@pytest.mark.filterwarnings("ignore:noise damping is off", "ignore:__array_wrap__ must accept:DeprecationWarning")
@pytest.mark.parametrize(("case", "family"), CASES)
def test_image_equals_the_explicit_form(case, family):
    """Within the rounding of float32, a hundredth of what any part of the method changes in these images."""
    if case.error:
        with pytest.raises(ValueError, match=case.error):
            drawn(case, family)
        return
    found, expected = drawn(case, family), drawn_by_hand(case, family)
    assert np.linalg.norm(found - expected) <= 5e-6 * np.linalg.norm(expected)


def test_the_document_says_what_is_tested():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_table(text) == text, "run python -m tests.scalecrafter.supported"
    assert {family for case, family in (each.values for each in CASES)} == {f for c in COLUMNS.values() for f in c}
