"""Sizes as people name them."""

import itertools
import math

import pytest

from experiments.demo.sizes import AREAS, ASPECTS, LARGEST, check_area, parse_aspect, size_for

SIDE, MULTIPLE = 128, 32


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("1:1", 1), ("16:9", 16 / 9), (" 9 : 16 ", 9 / 16), ("21/9", 21 / 9), ("3x2", 1.5), ("1.85", 1.85)],
)
def test_aspects_are_read_as_people_write_them(text, ratio):
    assert parse_aspect(text) == ratio


@pytest.mark.parametrize("text", ["", "wide", "0:1", "1:0", "-1:1", "9:1", "1:9", "1e9", "16:9:1", None, "१:१" * 100])
def test_other_aspects_are_one_sentence(text):
    with pytest.raises(ValueError, match="aspect is width to height, as 16:9"):
        parse_aspect(text)


@pytest.mark.parametrize(("area", "aspect"), list(itertools.product(AREAS, ASPECTS)))
def test_every_choice_is_near_its_area_and_aspect(area, aspect):
    """As near as sides that are multiples come: half a multiple off, along each side."""
    ratio = parse_aspect(aspect)
    height, width = size_for(area, ratio, (SIDE, SIDE), MULTIPLE)
    exact = SIDE * math.sqrt(area / ratio), SIDE * math.sqrt(area * ratio)
    assert height % MULTIPLE == width % MULTIPLE == 0
    assert abs(height - exact[0]) <= MULTIPLE / 2
    assert abs(width - exact[1]) <= MULTIPLE / 2
    check_area(height, width, (SIDE, SIDE))


def test_the_papers_sizes():
    """Sides of 2, 2.5, 2 by 4 and 4 times the training size."""
    sizes = [size_for(area, aspect, (512, 512), 64) for area, aspect in [(4, 1), (6.25, 1), (8, 2), (16, 1)]]
    assert sizes == [(1024, 1024), (1280, 1280), (1024, 2048), (2048, 2048)]


def test_what_is_too_large_is_one_sentence():
    side = int(SIDE * math.sqrt(LARGEST))
    check_area(side, side, (SIDE, SIDE))
    with pytest.raises(ValueError, match="10000x10000 .* 6,104 times the training area 128x128"):
        check_area(10000, 10000, (SIDE, SIDE))
