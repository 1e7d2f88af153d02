"""Features of images: order, batches, and when cached features are used."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval import features as module
from eval.crops import WHOLE, Crops
from eval.features import crop_extractor, images_to_features
from eval.image_sets import find_images
from eval.images import ImageFile
from eval.index import look_up, require_one_size
from tests.eval.helpers import MeanColour


def write_image(path: Path, seed: int, size: tuple[int, int] = (6, 8)) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, size=(*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


class Brightness:
    """Extractor of one number that counts what it has seen."""

    name, digest, dim = "brightness", "1", 1

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.seen += len(images)
        return images.mean(axis=(1, 2, 3), dtype=np.float32)[:, None]


@pytest.fixture
def images(tmp_path: Path) -> list[ImageFile]:
    for i in range(5):
        (tmp_path / "set").mkdir(exist_ok=True)
        write_image(tmp_path / "set" / f"{i}.png", seed=i)
    return find_images(tmp_path / "set")


def run(images: list[ImageFile], extractor: MeanColour, tmp_path: Path, **options) -> np.ndarray:
    (found,) = images_to_features(images, extractor, cache_dir=tmp_path / "cache", **options)
    return found


def cache_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*.npz"))


def test_features_follow_the_order_of_the_images(images: list[ImageFile], tmp_path: Path) -> None:
    forward = run(images, MeanColour(), tmp_path, batch_size=2)
    backward = run(images[::-1], MeanColour(), tmp_path, batch_size=3)
    assert forward.shape == (5, 4)
    assert forward.dtype == np.float32
    np.testing.assert_array_equal(forward, backward[::-1])
    np.testing.assert_allclose(forward[2, :3], np.asarray(Image.open(images[2].path)).mean(axis=(0, 1)), rtol=1e-6)


def test_chunks_do_not_change_features(
    images: list[ImageFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(images, MeanColour(), tmp_path)
    monkeypatch.setattr(module, "CHUNK", 2)
    np.testing.assert_array_equal(run(images, MeanColour(), tmp_path / "chunked"), whole)
    assert len(cache_files(tmp_path / "chunked")) == 3


def test_second_call_reads_no_image(images: list[ImageFile], tmp_path: Path, monkeypatch) -> None:
    extractor = MeanColour()
    first = run(images, extractor, tmp_path)

    def fail(image: ImageFile) -> bytes:
        raise AssertionError(f"{image} was read")

    monkeypatch.setattr(ImageFile, "read", fail)
    np.testing.assert_array_equal(run(images, extractor, tmp_path), first)
    assert extractor.seen == 5
    assert require_one_size(images, look_up(images, tmp_path / "cache")) == (6, 8)


def test_each_image_is_decoded_once_for_all_croppings(images: list[ImageFile], tmp_path: Path, monkeypatch) -> None:
    decoded = []
    original = ImageFile.pixels
    monkeypatch.setattr(ImageFile, "pixels", lambda image: decoded.append(image.name) or original(image))
    croppings = [WHOLE, Crops(4, 2), Crops(5, 1)]
    found = images_to_features(images, MeanColour(), cache_dir=tmp_path / "cache", croppings=croppings)
    assert sorted(decoded) == ["0", "1", "2", "3", "4"]
    assert [len(rows) for rows in found] == [5, 10, 5]
    for cropping, rows in zip(croppings, found, strict=True):
        np.testing.assert_array_equal(run(images, MeanColour(), tmp_path / "alone", croppings=[cropping]), rows)


def test_crops_go_to_the_extractor_for_crops(images: list[ImageFile], tmp_path: Path) -> None:
    """Another number of features, cached apart; an extractor without one takes crops itself."""
    whole, crops = MeanColour("whole"), Brightness()
    assert crop_extractor(whole) is whole
    whole.for_crops = crops
    croppings = [WHOLE, Crops(4, 3)]
    found = images_to_features(images, whole, cache_dir=tmp_path, croppings=croppings)
    assert [features.shape for features in found] == [(len(images), 4), (3 * len(images), 1)]
    assert (whole.seen, crops.seen) == (len(images), 3 * len(images))
    (alone,) = images_to_features(images, crops, cache_dir=tmp_path / "other", croppings=croppings[1:])
    np.testing.assert_array_equal(found[1], alone)
    again = images_to_features(images, whole, cache_dir=tmp_path, croppings=croppings)
    np.testing.assert_array_equal(again[1], alone)
    assert (whole.seen, crops.seen) == (len(images), 6 * len(images))


def test_replaced_image_is_noticed(images: list[ImageFile], tmp_path: Path) -> None:
    """Also if length and modification time stay the same."""
    extractor = MeanColour()
    before = run(images, extractor, tmp_path)
    path, old = images[3].path, images[3].path.stat()
    write_image(path, seed=99)
    after = run(images, extractor, tmp_path)
    assert list((before != after).any(axis=1)) == [False, False, False, True, False]
    write_image(path, seed=98)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (run(images, extractor, tmp_path)[3] != after[3]).any()


def test_retrained_extractor_is_noticed(images: list[ImageFile], tmp_path: Path) -> None:
    run(images, MeanColour("1"), tmp_path)
    retrained = MeanColour("2")
    run(images, retrained, tmp_path)
    assert retrained.seen == 5


@pytest.mark.parametrize("keep", [0, 30, 200])
def test_damaged_cache_is_rebuilt(images: list[ImageFile], tmp_path: Path, keep: int) -> None:
    first = run(images, MeanColour(), tmp_path)
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:keep])
    extractor = MeanColour()
    np.testing.assert_array_equal(run(images, extractor, tmp_path), first)
    assert extractor.seen == 5


def test_features_before_a_damaged_image_stay_cached(images: list[ImageFile], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)
    whole = images[4].path.read_bytes()
    images[4].path.write_bytes(whole[:-60])  # the header is intact
    extractor = MeanColour()
    with pytest.raises(ValueError, match=r"cannot read image .*4.png"):
        run(images, extractor, tmp_path)
    assert len(cache_files(tmp_path)) == 2
    images[4].path.write_bytes(whole)
    run(images, extractor, tmp_path)
    assert extractor.seen == 5


def test_images_may_differ_in_size(images: list[ImageFile], tmp_path: Path) -> None:
    write_image(images[2].path, seed=7, size=(6, 9))
    found = run(images, MeanColour(), tmp_path)
    np.testing.assert_allclose(found[2, :3], np.asarray(Image.open(images[2].path)).mean(axis=(0, 1)), rtol=1e-6)
    with pytest.raises(ValueError, match=r"2.png is 6x9, but .*0.png is 6x8"):
        require_one_size(images, look_up(images, tmp_path / "cache"))


def test_bad_input_raises(images: list[ImageFile], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images"):
        run([], MeanColour(), tmp_path)
    with pytest.raises(ValueError, match="batch_size"):
        run(images, MeanColour(), tmp_path, batch_size=0)
    with pytest.raises(FileNotFoundError, match="gone.png does not exist"):
        run([*images, ImageFile(tmp_path / "gone.png", "gone")], MeanColour(), tmp_path)
    assert not (tmp_path / "cache").exists()


class Wrong(MeanColour):
    """Extractor with a fixed output."""

    def __init__(self, output: np.ndarray) -> None:
        super().__init__()
        self.output = output

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.output


def test_bad_features_are_not_cached(images: list[ImageFile], tmp_path: Path) -> None:
    broken = np.zeros((5, 4))
    broken[2, 1] = np.nan
    for output, message in [(broken, "not finite for .*2.png"), (np.zeros((5, 3)), "expected")]:
        with pytest.raises(ValueError, match=message):
            run(images, Wrong(output), tmp_path)
    assert not cache_files(tmp_path)


def test_large_sets_are_mapped_from_a_file_without_a_name(
    images: list[ImageFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)
    options = {"cache_dir": tmp_path / "cache", "croppings": [WHOLE, Crops(4, 3)]}
    expected = images_to_features(images, MeanColour(), **options)
    before = sorted((tmp_path / "cache").iterdir())
    monkeypatch.setattr(module, "IN_MEMORY", 5 * 4 * 4)  # the whole images fit
    found = images_to_features(images, MeanColour(), **options)
    assert [isinstance(array, np.memmap) for array in found] == [False, True]
    for array, other in zip(found, expected, strict=True):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, other)
    assert sorted((tmp_path / "cache").iterdir()) == before
    whole = MeanColour("whole")
    whole.for_crops = Brightness()
    shapes = [array.shape for array in images_to_features(images, whole, **options)]
    assert shapes == [(len(images), 4), (3 * len(images), 1)]


def test_too_little_room_for_the_features_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="space|large"):
        module.empty_features(2**49, MeanColour(), WHOLE, tmp_path)
