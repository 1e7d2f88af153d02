"""Crops: where they lie, that nothing but the name moves them, and their features and scores."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.crops import Crops, large_enough
from eval.features import images_to_features
from eval.score import score_features
from tests.eval.helpers import MeanColour, features, smooth_images


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    made = [tmp_path / f"{i}.png" for i in range(5)]
    for path, image in zip(made, smooth_images(5, 40, 60), strict=True):
        Image.fromarray(image).save(path)
    return made


def test_positions_depend_on_the_name_and_the_seed_only() -> None:
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
    for (top, left), crop in zip(crops.positions("x", 40, 60), crops.cut(image, "x"), strict=True):
        np.testing.assert_array_equal(crop, image[top : top + 16, left : left + 16])


def test_features_of_crops_in_any_batch_and_order(paths: list[Path], tmp_path: Path) -> None:
    crops, options = Crops(16, 3), {"cache_dir": tmp_path / "cache"}
    forward = images_to_features(paths, MeanColour(), crops=crops, batch_size=2, **options)
    backward = images_to_features(paths[::-1], MeanColour(), crops=crops, batch_size=5, **options)
    assert forward.shape == (15, 4)
    np.testing.assert_array_equal(forward.reshape(5, 3, 4), backward.reshape(5, 3, 4)[::-1])
    image = np.asarray(Image.open(paths[1]))
    expected = [crop.mean(axis=(0, 1)) for crop in crops.cut(image, "1")]
    np.testing.assert_allclose(forward[3:6, :3], expected, rtol=1e-6)


def test_the_cache_knows_the_crops(paths: list[Path], tmp_path: Path) -> None:
    extractor = MeanColour()
    for crops in (None, Crops(16, 3), Crops(16, 3, seed=1), Crops(15, 3), Crops(16, 2), Crops(16, 3)):
        images_to_features(paths, extractor, crops=crops, cache_dir=tmp_path / "cache")
    assert extractor.seen == 5 + 15 + 15 + 15 + 10


def test_the_score_is_that_of_all_crops_and_its_error_that_of_images() -> None:
    """Four identical crops of each image: the error over images, not that of four times as many independent rows."""
    images, reference = features(200, 4), features(500, 4, seed=1, shift=0.2)
    crops = np.repeat(images, 4, axis=0)
    scores = score_features(crops, reference, "r", crops=4)
    assert set(scores) == {f"{name}{part}" for name in ("pfid_r", "pkid_r") for part in ("", "_se", "_jackknife")}
    assert scores["pkid_r"] == pytest.approx(score_features(crops, reference, "r")["kid_r"])
    single = score_features(images, reference, "r")
    assert scores["pkid_r_se"] == pytest.approx(single["kid_r_se"], rel=0.2)
    assert score_features(crops, reference, "r")["kid_r_se"] < 0.75 * single["kid_r_se"]


def test_small_images_are_refused_or_left_out(paths: list[Path]) -> None:
    with pytest.raises(ValueError, match="a is 40x60, smaller than a crop of 41"):
        Crops(41, 1).positions("a", 40, 60)
    assert large_enough(paths, 40) == paths
    assert large_enough(paths, 41) == []
    with pytest.raises(ValueError, match="at least 1"):
        Crops(0, 1)


def test_images_of_several_sizes(paths: list[Path], tmp_path: Path) -> None:
    Image.fromarray(smooth_images(1, 30, 30)[0]).save(paths[2])
    with pytest.raises(ValueError, match="2.png is 30x30, but .*0.png is 40x60"):
        images_to_features(paths, MeanColour(), cache_dir=tmp_path / "cache")
    found = images_to_features(paths, MeanColour(), cache_dir=tmp_path / "cache", mixed_sizes=True)
    np.testing.assert_allclose(found[2, :3], np.asarray(Image.open(paths[2])).mean(axis=(0, 1)), rtol=1e-6)
