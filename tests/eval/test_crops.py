"""Crops and patches: positions and what decides them, features and scores."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.crops import Crops, Patches, parse_crops
from eval.features import images_to_features
from eval.image_sets import find_images
from eval.images import ImageFile
from eval.score import score_features
from tests.eval.helpers import MeanColour, features, smooth_images


@pytest.fixture
def images(tmp_path: Path) -> list[ImageFile]:
    (tmp_path / "set").mkdir()
    for i, pixels in enumerate(smooth_images(5, 40, 60)):
        Image.fromarray(pixels).save(tmp_path / "set" / f"{i}.png")
    return find_images(tmp_path / "set")


def test_positions_depend_only_on_name_and_seed() -> None:
    crops = Crops(16, 20)
    first = crops.positions("a", 40, 60)
    assert first == Crops(16, 20).positions("a", 40, 60)
    assert first != crops.positions("b", 40, 60)
    assert first != Crops(16, 20, seed=1).positions("a", 40, 60)


def test_positions_are_uniform_and_reach_the_borders() -> None:
    tops, lefts = np.array(Crops(16, 4000).positions("a", 40, 60)).T
    assert (tops.min(), tops.max(), lefts.min(), lefts.max()) == (0, 24, 0, 44)
    assert np.bincount(tops, minlength=25).min() > 100


def test_crops_are_pixels_of_the_image() -> None:
    (image,) = smooth_images(1, 40, 60)
    crops = Crops(16, 3)
    for (top, left), crop in zip(crops.positions("x", 40, 60), crops.crops(image, "x", 7), strict=True):
        np.testing.assert_array_equal(crop, image[top : top + 16, left : left + 16])


def test_features_do_not_depend_on_batch_size_or_order(images: list[ImageFile], tmp_path: Path) -> None:
    crops, options = Crops(16, 3), {"cache_dir": tmp_path / "cache"}
    (forward,) = images_to_features(images, MeanColour(), croppings=[crops], batch_size=2, **options)
    (backward,) = images_to_features(images[::-1], MeanColour(), croppings=[crops], batch_size=5, **options)
    assert forward.shape == (15, 4)
    np.testing.assert_array_equal(forward.reshape(5, 3, 4), backward.reshape(5, 3, 4)[::-1])
    pixels = np.asarray(Image.open(images[1].path))
    expected = [crop.mean(axis=(0, 1)) for crop in crops.crops(pixels, "1", 1)]
    np.testing.assert_allclose(forward[3:6, :3], expected, rtol=1e-6)


def test_cache_distinguishes_croppings(images: list[ImageFile], tmp_path: Path) -> None:
    extractor = MeanColour()
    croppings = (
        Crops(16, 3),
        Crops(16, 3, seed=1),
        Crops(15, 3),
        Crops(16, 2),
        Patches(16, 30, 2),
        Patches(16, 40, 2),
    )
    for cropping in (*croppings, *croppings):
        images_to_features(images, extractor, croppings=[cropping], cache_dir=tmp_path / "cache")
    assert extractor.seen == 15 + 15 + 15 + 10 + 10 + 10


def test_score_uses_all_crops_and_standard_error_counts_images() -> None:
    """With four identical crops per image, the error is that of the images, not of four times as many rows."""
    images, reference = features(200, 4), features(500, 4, seed=1, shift=0.2)
    crops = np.repeat(images, 4, axis=0)
    scores = score_features(crops, reference, "r", cropping=Crops(16, 4))
    assert set(scores) == {f"{name}{part}" for name in ("pfid_r", "pkid_r") for part in ("", "_se", "_jackknife")}
    assert scores["pkid_r"] == pytest.approx(score_features(crops, reference, "r")["kid_r"])
    single = score_features(images, reference, "r")
    assert scores["pkid_r_se"] == pytest.approx(single["kid_r_se"], rel=0.2)
    assert score_features(crops, reference, "r")["kid_r_se"] < 0.75 * single["kid_r_se"]


def ramp(height: int, width: int) -> np.ndarray:
    """(height, width, 3): red grows with the row, green with the column, from 0 to 250."""
    rows, columns = np.linspace(0, 250, height)[:, None], np.linspace(0, 250, width)[None]
    channels = np.broadcast_arrays(rows, columns, np.zeros((1, 1)))
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def test_patches_show_the_same_place_at_the_same_scale_for_any_image_size() -> None:
    """On a ramp, mean and slope give a patch's position and scale: equal in an image and in a larger one."""
    patches = Patches(32, 64, 20)
    small, large = (patches.crops(ramp(side, side), name, 3).astype(float) for side, name in ((64, "a"), (256, "b")))
    assert np.abs(small.mean(axis=(1, 2)) - large.mean(axis=(1, 2))).max() < 3
    slopes = [(p[:, -1, :, 0] - p[:, 0, :, 0]).mean(axis=1) for p in (small, large)]
    np.testing.assert_allclose(*slopes, atol=5)
    # 32 of 32 to 64 pixels: from half to all of the image
    assert slopes[0].min() == pytest.approx(125, abs=12)
    assert slopes[0].max() > 180


def test_patches_are_crops_of_the_downsampled_image() -> None:
    """Against downsampling the whole square first, as the protocol says."""
    (image,) = smooth_images(1, 90, 90)
    patches = Patches(24, 60, 12)
    inner = slice(4, -4)  # the filter on the whole image also sees pixels beyond the patch's border
    matched = 0
    for patch in patches.crops(image, "a", 0):
        found = []
        for scaled in range(24, 61):
            resized = np.asarray(Image.fromarray(image).resize((scaled, scaled), Image.Resampling.LANCZOS)).astype(int)
            windows = np.lib.stride_tricks.sliding_window_view(resized, (24, 24), axis=(0, 1))
            difference = np.abs(windows - patch.transpose(2, 0, 1))[..., inner, inner].max(axis=(2, 3, 4))
            found.append(difference.min())
        matched += min(found) <= 3
    assert matched == 12


def test_patches_depend_on_index_not_name() -> None:
    image = ramp(80, 100)
    patches = Patches(16, 80, 4)
    np.testing.assert_array_equal(patches.crops(image, "a", 5), patches.crops(image, "b", 5))
    assert (patches.crops(image, "a", 5) != patches.crops(image, "a", 6)).any()
    assert patches.crops(image, "a", 5).shape == (4, 16, 16, 3)


def test_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="a is 40x60, smaller than a crop of 41"):
        Crops(41, 1).positions("a", 40, 60)
    with pytest.raises(ValueError, match="a is 40x60, below 41"):
        Patches(16, 41, 1).crops(ramp(40, 60), "a", 0)
    with pytest.raises(ValueError, match="at least 1"):
        Crops(0, 1)
    with pytest.raises(
        ValueError, match="patches need 1 <= size <= largest and a count of at least 1, not 20, 19 and 1"
    ):
        Patches(20, 19, 1)


def test_crops_are_parsed_from_presets_and_sizes() -> None:
    assert parse_crops("native", 299, 2048) == Crops(299, 10)
    assert parse_crops("fidc1024", 299, 2048) == Crops(1024, 10)
    assert parse_crops("anyres", 299, 2048) == Patches(256, 2048, 10)
    assert parse_crops("64:4", 299, 128) == Crops(64, 4)
    for text in ("ten", "64", "64:", ":4", "6.4:4"):
        with pytest.raises(ValueError, match="unknown crops .*: choose from native, fidc1024, anyres or SIZE:COUNT"):
            parse_crops(text, 299, 2048)
    with pytest.raises(ValueError, match="crops of 1024 pixels do not fit into images of 512"):
        parse_crops("fidc1024", 299, 512)
