"""The renderer against geometry known in closed form, and against itself at other sizes."""

import colorsys
import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import label

from experiments.scenes.rendered import rendered_images
from experiments.scenes.renderer.scene import (
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
from experiments.scenes.renderer.shapes import box, coverage, ellipse, polygon, segment

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
    ids=["circle", "ellipse", "box", "rounded box", "triangle", "capsule"],
)
def test_coverage_integrates_to_area(shape, area):
    for n in (64, 256):
        x, y = grid(n)
        assert coverage(shape(x, y), 1 / n).mean() == pytest.approx(area, rel=0.01)


def test_render_is_deterministic_and_shows_every_factor():
    assert np.array_equal(render(SCENE, 48, 48), render(SCENE, 48, 48))
    for change in ({"seed": 8}, {"object": "car"}, {"colour": "blue"}, {"background": "beach"}, {"copies": 3}):
        assert not np.array_equal(render(SCENE, 48, 48), render(replace(SCENE, **change), 48, 48))


def test_large_image_shows_same_scene():
    for object_name, background in itertools.product(OBJECTS, BACKGROUNDS):
        scene = Scene(object_name, "purple", background, seed=3)
        small, large = render(scene, 64, 64).astype(float), render(scene, 256, 256).astype(float)
        reduced = large.reshape(64, 4, 64, 4, 3).mean((1, 3))
        assert np.abs(reduced - small).mean() < 2.0, scene


def test_render_supports_any_size():
    for height, width in ((64, 128), (128, 64), (80, 112), (31, 57)):
        image = render(SCENE, height, width)
        assert image.shape == (height, width, 3)
        assert image.dtype == np.uint8
        assert image.std() > 10


def test_object_scales_with_short_side():
    """The red area of the mushroom is the same on 64x128 as on 64x64."""

    def red_area(image):
        r, g, b = np.moveaxis(image.astype(int), -1, 0)
        return ((r > 120) & (g < 90) & (b < 90)).sum()

    assert red_area(render(SCENE, 64, 128)) == pytest.approx(red_area(render(SCENE, 64, 64)), rel=0.03)


def test_colours_have_hue_of_their_name():
    for colour, seed in itertools.product(COLOURS, range(20)):
        hue = colorsys.rgb_to_hsv(*main_colour(colour, np.random.default_rng(seed)).tolist())[0]
        nearest = min(HUES, key=lambda name: abs((hue - HUES[name] + 0.5) % 1 - 0.5))  # noqa: B023
        assert nearest == colour


def test_copies_fit_into_image_and_do_not_overlap():
    for copies in range(1, 17):
        spots = places(copies, np.random.default_rng(copies))
        assert len(spots) == copies
        for i, (x, y, size) in enumerate(spots):
            assert abs(x) + size / 2 < 0.52
            assert abs(y) + size / 2 < 0.52
            for other_x, other_y, _ in spots[:i]:
                assert max(abs(x - other_x), abs(y - other_y)) > size


def test_rendered_copies_are_countable():
    """Blue tree crowns on sand are as many connected blue regions as there are copies."""
    for copies in (1, 2, 4, 9):
        image = render(Scene("tree", "blue", "desert", seed=5, copies=copies), 192, 192).astype(int)
        _, regions = label((image[..., 2] > 110) & (image[..., 0] < 110))
        assert regions == copies


def test_sampling_is_balanced_deterministic_and_nested():
    scenes = sample_scenes(288, seed=1)
    assert scenes == sample_scenes(288, seed=1)
    assert sample_scenes(20, seed=1) == scenes[:20]
    counts = {(s.object, s.colour, s.background) for s in scenes[:144]}
    assert len(counts) == len(OBJECTS) * len(COLOURS) * len(BACKGROUNDS) == 144
    assert not {s.seed for s in scenes} & {s.seed for s in sample_scenes(288, seed=2)}


def test_captions_name_all_factors():
    assert SCENE.caption == "a red mushroom in a meadow"
    assert Scene("robot", "orange", "snow", 0).caption == "an orange robot in the snow"
    assert len({s.caption for s in sample_scenes(144, 0)}) == 144


def test_unknown_factors_raise():
    for wrong, message in (
        ({"object": "unicorn"}, "'unicorn': choose from mushroom"),
        ({"colour": "octarine"}, "'octarine': choose from red"),
        ({"background": "moon"}, "'moon': choose from meadow"),
        ({"copies": 0}, "copies must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            render(replace(SCENE, **wrong), 32, 32)


def test_rendered_images_are_lazy_images_with_own_digests():
    images = rendered_images(2, 1, 20, 30)
    assert [image.name for image in images] == ["real-0", "real-1"]
    assert images[0].size() == (20, 30) == images[0].pixels().shape[:2]
    np.testing.assert_array_equal(images[1].pixels(), render(sample_scenes(2, 1)[1], 20, 30))
    digests = {image.digest() for size in ((20, 30), (30, 20)) for image in rendered_images(2, 1, *size)}
    assert len(digests) == 4
