"""The scenes renderer against geometry known in closed form and against itself at other sizes."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.scenes.data import counting_scenes
from experiments.scenes.render import (
    BACKGROUNDS,
    COLOURS,
    HUES,
    OBJECTS,
    Scene,
    main_colour,
    places,
    render,
    sample_scenes,
)
from experiments.scenes.shapes import box, coverage, ellipse, polygon, segment

SCENE = Scene("mushroom", "red", "meadow", seed=7)


def grid(n: int) -> tuple[np.ndarray, np.ndarray]:
    line = ((np.arange(n) + 0.5) / n - 0.5).astype(np.float32)
    y, x = np.meshgrid(line, line, indexing="ij")
    return x, y


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        (lambda x, y: ellipse(x, y, 0.02, -0.03, 0.3, 0.3), np.pi * 0.09),
        (lambda x, y: ellipse(x, y, 0.0, 0.0, 0.4, 0.2), np.pi * 0.08),
        (lambda x, y: box(x, y, 0.1, 0.05, 0.3, 0.2), 0.24),
        (lambda x, y: box(x, y, 0.0, 0.0, 0.3, 0.2, corner=0.1), 0.24 - (4 - np.pi) * 0.01),
        (lambda x, y: polygon(x, y, (-0.4, 0.3), (0.0, -0.3), (0.4, 0.3)), 0.24),
        (lambda x, y: segment(x, y, -0.2, 0.0, 0.2, 0.0, 0.1), 0.08 + np.pi * 0.01),
    ],
)
@pytest.mark.parametrize("n", [64, 256])
def test_coverage_integrates_to_the_area_of_the_shape(shape, area, n):
    x, y = grid(n)
    assert coverage(shape(x, y), 1 / n).mean() == pytest.approx(area, rel=0.01)


def test_rendering_is_deterministic_and_every_factor_shows():
    assert np.array_equal(render(SCENE, 48, 48), render(SCENE, 48, 48))
    for change in ({"seed": 8}, {"object": "car"}, {"colour": "blue"}, {"background": "beach"}, {"copies": 3}):
        assert not np.array_equal(render(SCENE, 48, 48), render(replace(SCENE, **change), 48, 48))


@pytest.mark.parametrize("object_name", OBJECTS)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_larger_picture_shows_the_same_scene(object_name, background):
    scene = Scene(object_name, "purple", background, seed=3)
    small, large = render(scene, 64, 64).astype(float), render(scene, 256, 256).astype(float)
    reduced = large.reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(reduced - small).mean() < 2.0


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 128), (128, 64), (80, 112), (31, 57)])
def test_any_size(height, width):
    picture = render(SCENE, height, width)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 10


def test_the_object_keeps_its_size_on_a_wide_picture():
    """Red of the mushroom covers as many pixels on 64x128 as on 64x64: the object is scaled by the short side."""

    def red(picture):
        r, g, b = np.moveaxis(picture.astype(int), -1, 0)
        return ((r > 120) & (g < 90) & (b < 90)).sum()

    assert red(render(SCENE, 64, 128)) == pytest.approx(red(render(SCENE, 64, 64)), rel=0.03)


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_have_the_hue_of_their_name(colour):
    import colorsys

    for seed in range(20):
        hue = colorsys.rgb_to_hsv(*main_colour(colour, np.random.default_rng(seed)).tolist())[0]
        nearest = min(HUES, key=lambda name: abs((hue - HUES[name] + 0.5) % 1 - 0.5))
        assert nearest == colour


@pytest.mark.parametrize("copies", range(1, 17))
def test_copies_are_as_many_as_asked_and_do_not_overlap(copies):
    spots = places(copies, np.random.default_rng(copies))
    assert len(spots) == copies
    for i, (x, y, size) in enumerate(spots):
        assert abs(x) + size / 2 < 0.52
        assert abs(y) + size / 2 < 0.52
        for other_x, other_y, _ in spots[:i]:
            assert max(abs(x - other_x), abs(y - other_y)) > size


def connected(mask: np.ndarray) -> int:
    """Number of 4-connected regions, by flood fill."""
    seen, count = ~mask, 0
    for start in zip(*np.nonzero(mask), strict=True):
        if seen[start]:
            continue
        count, stack = count + 1, [start]
        while stack:
            row, column = stack.pop()
            inside = 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]
            if inside and not seen[row, column]:
                seen[row, column] = True
                stack += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
    return count


@pytest.mark.parametrize("copies", [1, 2, 4, 9])
def test_drawn_copies_can_be_counted(copies):
    """Blue tree crowns on sand are separate blobs of blue: as many as copies."""
    picture = render(Scene("tree", "blue", "desert", seed=5, copies=copies), 192, 192).astype(int)
    assert connected((picture[..., 2] > 110) & (picture[..., 0] < 110)) == copies


def test_sampling_is_balanced_deterministic_and_nested():
    scenes = sample_scenes(288, seed=1)
    assert scenes == sample_scenes(288, seed=1)
    assert sample_scenes(20, seed=1) == scenes[:20]  # subsets are nested
    counts = {(s.object, s.colour, s.background) for s in scenes[:144]}
    assert len(counts) == len(OBJECTS) * len(COLOURS) * len(BACKGROUNDS) == 144
    assert not {s.seed for s in scenes} & {s.seed for s in sample_scenes(288, seed=2)}
    assert {s.copies for s in counting_scenes(400, 1)} == set(range(1, 17))


def test_captions():
    assert SCENE.caption == "a red mushroom in a meadow"
    assert Scene("robot", "orange", "snow", 0).caption == "an orange robot in the snow"
    assert len({s.caption for s in sample_scenes(144, 0)}) == 144


@pytest.mark.parametrize(
    "wrong", [{"object": "unicorn"}, {"colour": "octarine"}, {"background": "moon"}, {"copies": 0}]
)
def test_what_does_not_exist_is_refused(wrong):
    with pytest.raises(ValueError, match="unicorn|octarine|moon|at least one"):
        render(replace(SCENE, **wrong), 32, 32)
