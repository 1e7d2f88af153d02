"""Planned cost, as the papers count it."""

import pytest

from baselines.method import Request, Sampler


@pytest.fixture
def planned_pairs():
    """planned_pairs(method, pipe, height, width) -> base-size guidance pairs of one image, for sides in multiples of
    the training side.
    """

    def count(method, pipe, height, width, steps=50):
        request = Request(["a"], [1], int(32 * height), int(32 * width), Sampler(steps, 7.5))
        return sum(c.times * c.samples / 2 * c.height * c.width / 64 for c in method.calls(pipe, request))

    return count
