"""Settings "auto" change by and by with either side, and alike with both."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from scalecrafter.auto import DEAD_BAND, settings_between
from scalecrafter.redilate import per_axis
from tests.scalecrafter.test_auto import FAMILIES, both, tables_of


def ladder(step=64):
    """Growths of one side in steps of ``step`` pixels of 512, up to 8, and just around the sizes of tables."""
    sides = {*range(64, 4097, step), *(round(512 * a) + d for a in (1, DEAD_BAND, 2, 2.5, 4) for d in (-8, 0, 8))}
    return [side / 512 for side in sorted(sides)]


PATHS = [lambda r: (r, 0.5), lambda r: (r, 1.5), lambda r: (r, 3), lambda r: (r, 8), lambda r: (r, r)]


def typical(tables):
    """The tables with one layer of each kind; kinds differ in a factor of some table."""
    names = sorted({name for table in tables.values() for name in table.dilation})
    kinds = {tuple((t.dilation.get(n), t.noise_damped_dilation.get(n)) for t in tables.values()): n for n in names}
    tables_of_kinds = {}
    for area, table in tables.items():
        main, base = (
            {n: d for n, d in factors.items() if n in kinds.values()}
            for factors in (table.dilation, table.noise_damped_dilation)
        )
        tables_of_kinds[area] = replace(table, dilation=main, noise_damped_dilation=base)
    return tables_of_kinds, list(kinds.values())


@pytest.mark.parametrize("path", range(len(PATHS)))
@pytest.mark.parametrize("family", FAMILIES)
def test_factors_are_continuous_and_monotonic_in_each_side(family, path):
    """Along one side, with the other below, near and above the training size, and along the square. Monotonic are, at
    step 0, the layers whose factors do not decrease from table to table. The steepest are an axis that starts to grow
    where the other is 8, from 1 to 8, and that other one while the area grows from one to two times the trained one.
    """
    tables, names = typical(tables_of(family))
    starts = [[both(tables[area], name)[0] for name in names] for area in sorted(tables)]
    growing = (np.diff(starts, axis=0) >= 0).all(axis=0)
    assert growing.any()
    growths = ladder()
    steepest = 7.01 * max(1, PATHS[path](1)[1])  # excess of factors, times the growth of the area with this side
    settings = [settings_between(tables, PATHS[path](r)) for r in growths]
    for step, base_pass in itertools.product((0, 19, 20, 33, 36), (False, True)):
        damped = [base_pass and step < each.noise_damped_tau for each in settings]
        values = np.array([[both(s, n, step, b) for n in names] for s, b in zip(settings, damped, strict=True)])
        rises = np.diff(values, axis=0)
        assert (np.abs(rises) <= steepest * np.diff(growths)[:, None, None]).all()
        if step == 0 and not base_pass:
            assert (rises[:, growing] >= 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_height_and_width_are_treated_alike(family):
    for height, width in itertools.product((0.5, 1.1, 1.5, 2.2, 3, 5), repeat=2):
        one, other = (settings_between(tables_of(family), size) for size in ((height, width), (width, height)))
        assert {n: per_axis(d)[::-1] for n, d in one.dilation.items()} == {
            n: per_axis(d) for n, d in other.dilation.items()
        }
