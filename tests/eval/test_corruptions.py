"""Corruptions against closed forms, and their steps against each other."""

import numpy as np
import pytest

from eval.corruptions import (
    CORRUPTIONS,
    STEPS,
    blur,
    colour_shift,
    corrupt,
    crop_object,
    dilation_grid,
    enlarge,
    jpeg,
    noise,
    ringing,
    speckle,
    swap_quadrants,
)
from tests.eval.helpers import smooth_images

RNG = np.random.default_rng


def flat(value: int = 100, height: int = 64, width: int = 96) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_steps_change_more_and_more_and_always_in_the_same_way(kind):
    """Of images that are not square: step 0 is the identity, the error grows with the step, and neither the shape nor
    the input changes.
    """
    images = smooth_images(4, 90, 120)
    untouched = images.copy()
    errors = []
    for step in (0, *STEPS):
        corrupted = np.stack([corrupt(image, kind, step, f"image-{i}") for i, image in enumerate(images)])
        again = np.stack([corrupt(image, kind, step, f"image-{i}") for i, image in enumerate(images)])
        assert corrupted.shape == images.shape
        assert corrupted.dtype == np.uint8
        np.testing.assert_array_equal(corrupted, again)
        errors.append(np.abs(corrupted.astype(int) - images).mean())
    np.testing.assert_array_equal(images, untouched)
    assert errors[0] == 0
    assert all(before < after for before, after in zip(errors[:-1], errors[1:], strict=True)), errors


def test_unknown_kind_and_step_raise():
    for kind, step in (("rain", 1), ("blur", 5), ("blur", -1)):
        with pytest.raises(ValueError, match=r"unknown corruption 'rain'|steps 0 to 4"):
            corrupt(flat(), kind, step, "a")


def test_what_is_random_depends_on_the_name():
    image = smooth_images(1, 64, 64)[0]
    for kind in ("noise", "speckle", "dilation grid"):
        assert (corrupt(image, kind, 3, "a") != corrupt(image, kind, 3, "b")).any()


def test_blur_ringing_and_enlarging_keep_a_flat_image():
    for function in (blur, enlarge, ringing):
        np.testing.assert_array_equal(function(flat(), 4, RNG(0)), flat())


def test_blur_of_a_point_is_a_gaussian():
    image = flat(0)
    image[32, 48] = 255
    y, x = np.mgrid[-32:32, -48:48]
    expected = 255 * np.exp(-(x**2 + y**2) / (2 * 2.0**2)) / (2 * np.pi * 2.0**2)
    assert np.abs(blur(image, 2.0, RNG(0))[..., 0] - expected).max() <= 0.6  # rounding, and the discrete kernel


def test_ringing_overshoots_on_both_sides_of_an_edge():
    image = flat(50)
    image[:, 48:] = 200
    row = ringing(image, 1.0, RNG(0))[32, :, 0].astype(int)
    assert row[47] < 50 < 200 < row[48]
    assert (row[0], row[-1]) == (50, 200)


def test_noise_has_its_standard_deviation():
    values = noise(flat(128, 200, 200), 10, RNG(0)).astype(float) - 128
    assert abs(values.mean()) < 0.15  # 5 standard errors
    assert values.std() == pytest.approx(10, rel=0.02)


def test_speckles_are_grains_of_a_few_pixels_in_patches():
    """Most of their power has wavelengths of 4 to 20 pixels; where they are strongest they have their sigma."""
    found = speckle(flat(128, 256, 256), 16, RNG(1)).astype(float) - 128
    power = np.abs(np.fft.fft2(found, axes=(0, 1))) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    assert power[(frequency > 1 / 20) & (frequency < 1 / 4)].sum() > 0.85 * power.sum()
    squares = found.reshape(16, 16, 16, 16, 3).std(axis=(1, 3, 4))
    assert squares.max() == pytest.approx(16, rel=0.25)
    assert squares.min() < 0.25 * squares.max()


def test_dilation_grid_takes_each_sub_image_from_elsewhere():
    image = smooth_images(1, 60, 80)[0]
    np.testing.assert_array_equal(dilation_grid(image, 0, RNG(0), d=2), image)
    np.testing.assert_array_equal(dilation_grid(flat(), 8, RNG(0)), flat())
    y, x = np.mgrid[0:60, 0:80]
    positions = np.stack([y, x, 0 * x], axis=-1).astype(np.uint8)  # every pixel tells where it comes from
    moved = dilation_grid(positions, 3, RNG(0), d=2)[10:-10, 10:-10].astype(int) - positions[10:-10, 10:-10]
    offsets = [np.unique(moved[i::2, j::2, :2].reshape(-1, 2), axis=0) for i in (0, 1) for j in (0, 1)]
    assert all(len(each) == 1 for each in offsets)
    assert len(np.unique(np.concatenate(offsets), axis=0)) > 1
    assert np.abs(np.concatenate(offsets)).max() <= 3


def test_swapping_quadrants_twice_is_the_identity():
    for height, width in ((64, 96), (63, 97)):
        image = smooth_images(1, height, width)[0]
        for share in (0.25, 0.5, 1.0):
            np.testing.assert_array_equal(swap_quadrants(swap_quadrants(image, share, RNG(0)), share, RNG(0)), image)
    image = smooth_images(1, 64, 96)[0]
    np.testing.assert_array_equal(swap_quadrants(image, 1.0, RNG(0)), np.roll(image, (32, 48), axis=(0, 1)))


def test_colour_shift_scales_red_and_blue():
    np.testing.assert_array_equal(colour_shift(flat(100), 0.2, RNG(0))[0, 0], [120, 100, 80])
    np.testing.assert_array_equal(colour_shift(flat(250), 0.4, RNG(0))[0, 0], [255, 250, 150])


def test_cropped_object_enlarges_a_corner():
    """Half of an image whose four quadrants are flat is one flat quadrant."""
    image = np.kron(np.array([[10, 80], [150, 220]], np.uint8), np.ones((32, 48), np.uint8))[..., None].repeat(3, 2)
    values = {int(np.median(crop_object(image, 0.5, RNG(seed)))) for seed in range(40)}
    assert values == {10, 80, 150, 220}


def test_jpeg_of_high_quality_is_nearly_lossless():
    image = smooth_images(1, 64, 96)[0]
    assert np.abs(jpeg(flat(), 95, RNG(0)).astype(int) - 100).max() <= 1
    assert np.abs(jpeg(image, 5, RNG(0)).astype(int) - image).mean() > 5
