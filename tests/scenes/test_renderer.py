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
    coordinates,
    crowd,
    main_colour,
    placement,
    places,
    render,
    sample_scenes,
)

SCENE = Scene("mushroom", "red", "meadow", seed=7)
PAIRS = list(itertools.product(OBJECTS, BACKGROUNDS))
COUNT = max(len(OBJECTS), len(BACKGROUNDS))
# Each object and each background at least once: they are painted one after the other.
COVERING = [(list(OBJECTS)[i % len(OBJECTS)], list(BACKGROUNDS)[i % len(BACKGROUNDS)]) for i in range(COUNT)]
SLOW_TOO = [pytest.param(*pair, marks=() if pair in COVERING else pytest.mark.slow) for pair in PAIRS]


def reduced(image: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares of pixels."""
    height, width, channels = image.shape
    return image.reshape(height // factor, factor, width // factor, factor, channels).mean((1, 3))


def fine_detail(image: np.ndarray, side: int) -> float:
    """Standard deviation of what is in a square image beyond the finest waves that ``side`` pixels can show."""
    spectrum = np.fft.fft2(image.astype(float).mean(2))
    frequency = np.abs(np.fft.fftfreq(len(image), 1 / len(image)))
    spectrum[np.maximum(frequency[:, None], frequency[None]) <= side / 2] = 0
    return float(np.fft.ifft2(spectrum).real.std())


def test_render_is_deterministic_and_shows_every_factor():
    assert np.array_equal(render(SCENE, 48, 48), render(SCENE, 48, 48))
    changes = ({"seed": 8}, {"object": "car"}, {"colour": "blue"}, {"background": "beach"}, {"copies": 3}, {"zoom": 2})
    for change in changes:
        assert not np.array_equal(render(SCENE, 48, 48), render(replace(SCENE, **change), 48, 48))


@pytest.mark.parametrize(("name", "background"), SLOW_TOO)
def test_larger_image_shows_the_same_scene_with_more_detail(name, background):
    """The same at the base size, and above it parts and textures that an enlarged image lacks."""
    scene = Scene(name, "purple", background, seed=3)
    small, large = render(scene, 128, 128), render(scene, 512, 512)
    assert np.abs(reduced(large.astype(float), 4) - small).mean() < 2.5
    smooth = np.fft.fft2(small.astype(float).mean(2))
    padded = np.zeros((512, 512), complex)
    padded[192:320, 192:320] = np.fft.fftshift(smooth) * 16
    enlarged = np.fft.ifft2(np.fft.ifftshift(padded)).real
    assert fine_detail(enlarged[..., None], 130) < 0.1
    assert fine_detail(large, 128) > 2


@pytest.mark.parametrize(("name", "background"), SLOW_TOO)
def test_close_ups_are_crops_of_larger_renders(name, background):
    """128 pixels of a frame of 512, where `coordinates` says: the same up to the subpixel position of the crop."""
    frame = (np.arange(512) + 0.5) / 512 - 0.5
    scene = Scene(name, "orange", background, seed=11, zoom=4)
    x, y, pixel = coordinates(scene, 128, 128)
    assert pixel == 1 / 512
    left, top = (int(np.abs(frame - start).argmin()) for start in (x[0, 0], y[0, 0]))
    assert np.abs(frame[left : left + 128] - x[0]).max() < 0.51 * pixel
    assert np.abs(frame[top : top + 128] - y[:, 0]).max() < 0.51 * pixel
    crop = render(replace(scene, zoom=1), 512, 512)[top : top + 128, left : left + 128]
    assert np.abs(reduced(crop.astype(float), 4) - reduced(render(scene, 128, 128).astype(float), 4)).mean() < 5


def test_close_up_of_the_whole_frame_is_the_scene_itself():
    """Any zoom above one moves towards the object; the nearest to one hardly does."""
    whole, nearly = render(SCENE, 96, 96).astype(float), render(replace(SCENE, zoom=1.0001), 96, 96)
    assert np.abs(whole - nearly).mean() < 0.1


def test_close_ups_show_the_object():
    for scene in sample_scenes(60, 9):
        x, y, _ = coordinates(replace(scene, zoom=3), 64, 64)
        centre_x, centre_y, size = placement(scene)[1][0]
        assert np.abs(x.mean() - centre_x) <= 0.3 * size + 1e-6
        assert np.abs(y.mean() - centre_y) <= 0.3 * size + 1e-6
        assert max(np.abs(x).max(), np.abs(y).max()) <= 0.5  # within the frame


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


def test_single_object_fills_half_the_frame_to_four_fifths_and_stands_inside():
    sizes = []
    for seed in range(300):
        _, ((x, y, size),) = placement(replace(SCENE, seed=seed))
        sizes.append(size)
        assert abs(x) + size / 2 <= 0.5
        assert abs(y) + size / 2 <= 0.5
    assert 0.45 <= min(sizes) < 0.47
    assert 0.78 < max(sizes) <= 0.8


@pytest.mark.parametrize("name", OBJECTS)
def test_object_covers_the_place_that_is_stated(name):
    """Pixels that differ between two colours of the same scene are the object's, without its shadow."""
    for seed in range(4):
        scene = Scene(name, "red", "snow", seed=seed)
        _, ((x, y, size),) = placement(scene)
        changed = (render(scene, 128, 128) != render(replace(scene, colour="blue"), 128, 128)).any(2)
        rows, columns = (np.flatnonzero(changed.any(axis)) / 128 - 0.5 for axis in (1, 0))
        for first, last, centre in ((rows[0], rows[-1], y), (columns[0], columns[-1], x)):
            assert centre - 0.55 * size < first
            assert last < centre + 0.55 * size
        assert max(np.ptp(rows), np.ptp(columns)) > 0.6 * size


def test_copies_are_inside_the_image_and_overlap_little():
    for copies in range(2, 37):
        spots = places(copies, np.random.default_rng(copies))
        assert len(spots) == copies
        cell = 1 / np.ceil(np.sqrt(copies))
        for i, (x, y, size) in enumerate(spots):
            assert max(abs(x), abs(y)) + size / 2 < 0.5 + 0.1 * cell
            for other_x, other_y, other in spots[:i]:
                assert max(abs(x - other_x), abs(y - other_y)) > 0.75 * (size + other) / 2


@pytest.mark.parametrize("copies", [2, 6, 12])
def test_crowds_overlap_and_hide_nobody(copies):
    """Farthest first; many centres are nearer to another than objects are wide, but hardly any within 0.4 of it."""
    nearest = []
    for seed in range(60):
        spots = crowd(copies, np.random.default_rng(seed))
        assert len(spots) == copies
        assert max(abs(c) for x, y, _ in spots for c in (x, y)) < 0.5
        feet = [y + size / 2 for _, y, size in spots]
        assert feet == sorted(feet)
        for i, (x, y, size) in enumerate(spots):
            others = spots[:i] + spots[i + 1 :]
            nearest.append(min(np.hypot(x - a, y - b) / max(size, c) for a, b, c in others))
    assert np.mean(np.array(nearest) < 0.4) < 0.02
    assert np.mean(np.array(nearest) < 0.8) > 0.2


def test_rendered_copies_are_countable():
    """Blue tree crowns on sand are as many connected blue regions as there are copies, where none touch."""
    for copies in (1, 2, 4, 9, 16, 36):
        scenes = (Scene("tree", "blue", "desert", seed=seed, copies=copies) for seed in itertools.count())
        scene = next(scene for scene in scenes if separated(placement(scene)[1]))
        image = render(scene, 384, 384).astype(int)
        regions, _ = label((image[..., 2] > 70) & (image[..., 2] > 1.2 * image[..., 0]))
        areas = np.bincount(regions.ravel())[1:]  # leaves at the edge of a crown may be apart from it
        assert (areas > 0.1 * areas.max()).sum() == copies


def separated(spots):
    """Whether no two objects are nearer than their crowns are wide."""
    return all(
        max(abs(a[0] - b[0]), abs(a[1] - b[1])) > 0.95 * (a[2] + b[2]) / 2 for a, b in itertools.combinations(spots, 2)
    )


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
    assert Scene("robot", "orange", "snow", 0, zoom=2).caption == "close up of an orange robot in the snow"
    assert len({s.caption for s in sample_scenes(144, 0)}) == 144


def test_unknown_factors_raise():
    for wrong, message in (
        ({"object": "unicorn"}, "'unicorn': choose from mushroom"),
        ({"colour": "octarine"}, "'octarine': choose from red"),
        ({"background": "moon"}, "'moon': choose from meadow"),
        ({"copies": 0}, "copies and zoom must be at least 1, got 0 and 1"),
        ({"zoom": 0.5}, "copies and zoom must be at least 1, got 1 and 0.5"),
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
