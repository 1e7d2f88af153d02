"""Features of pictures: order, batches, and a cache that cannot be fooled."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval import features as module
from eval.crops import WHOLE, Crops
from eval.features import images_to_features
from eval.images import FilePicture
from eval.index import look_up, require_one_size
from eval.sources import find_pictures
from tests.eval.helpers import MeanColour


def write_image(path: Path, seed: int, size: tuple[int, int] = (6, 8)) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, size=(*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> list[FilePicture]:
    for i in range(5):
        (tmp_path / "set").mkdir(exist_ok=True)
        write_image(tmp_path / "set" / f"{i}.png", seed=i)
    return find_pictures(tmp_path / "set")


def run(pictures: list[FilePicture], extractor: MeanColour, tmp_path: Path, **options) -> np.ndarray:
    (found,) = images_to_features(pictures, extractor, cache_dir=tmp_path / "cache", **options)
    return found


def cache_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*.npz"))


def test_features_in_the_order_of_the_pictures(pictures: list[FilePicture], tmp_path: Path) -> None:
    forward = run(pictures, MeanColour(), tmp_path, batch_size=2)
    backward = run(pictures[::-1], MeanColour(), tmp_path, batch_size=3)
    assert forward.shape == (5, 4)
    assert forward.dtype == np.float32
    np.testing.assert_array_equal(forward, backward[::-1])
    np.testing.assert_allclose(forward[2, :3], np.asarray(Image.open(pictures[2].path)).mean(axis=(0, 1)), rtol=1e-6)


def test_chunks_are_as_good_as_one(
    pictures: list[FilePicture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(pictures, MeanColour(), tmp_path)
    monkeypatch.setattr(module, "CHUNK", 2)
    np.testing.assert_array_equal(run(pictures, MeanColour(), tmp_path / "chunked"), whole)
    assert len(cache_files(tmp_path / "chunked")) == 3


def test_second_call_reads_no_image(pictures: list[FilePicture], tmp_path: Path, monkeypatch) -> None:
    extractor = MeanColour()
    first = run(pictures, extractor, tmp_path)

    def unreadable(picture: FilePicture) -> bytes:
        raise AssertionError(f"{picture} was read")

    monkeypatch.setattr(FilePicture, "read", unreadable)
    np.testing.assert_array_equal(run(pictures, extractor, tmp_path), first)
    assert extractor.seen == 5
    assert require_one_size(pictures, look_up(pictures, tmp_path / "cache")) == (6, 8)


def test_every_picture_is_decoded_once_for_all_cuts(pictures: list[FilePicture], tmp_path: Path, monkeypatch) -> None:
    decoded = []
    original = FilePicture.pixels
    monkeypatch.setattr(FilePicture, "pixels", lambda picture: decoded.append(picture.name) or original(picture))
    cuts = [WHOLE, Crops(4, 2), Crops(5, 1)]
    found = images_to_features(pictures, MeanColour(), cache_dir=tmp_path / "cache", cuts=cuts)
    assert sorted(decoded) == ["0", "1", "2", "3", "4"]
    assert [len(rows) for rows in found] == [5, 10, 5]
    for cut, rows in zip(cuts, found, strict=True):
        np.testing.assert_array_equal(run(pictures, MeanColour(), tmp_path / "alone", cuts=[cut]), rows)


def test_replaced_image_is_noticed(pictures: list[FilePicture], tmp_path: Path) -> None:
    """Also one of the same length with the old modification time."""
    extractor = MeanColour()
    before = run(pictures, extractor, tmp_path)
    path, old = pictures[3].path, pictures[3].path.stat()
    write_image(path, seed=99)
    after = run(pictures, extractor, tmp_path)
    assert list((before != after).any(axis=1)) == [False, False, False, True, False]
    write_image(path, seed=98)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (run(pictures, extractor, tmp_path)[3] != after[3]).any()


def test_other_extractor_is_noticed(pictures: list[FilePicture], tmp_path: Path) -> None:
    run(pictures, MeanColour("1"), tmp_path)
    retrained = MeanColour("2")
    run(pictures, retrained, tmp_path)
    assert retrained.seen == 5


@pytest.mark.parametrize("keep", [0, 30, 200])
def test_damaged_cache_is_made_again(pictures: list[FilePicture], tmp_path: Path, keep: int) -> None:
    first = run(pictures, MeanColour(), tmp_path)
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:keep])
    extractor = MeanColour()
    np.testing.assert_array_equal(run(pictures, extractor, tmp_path), first)
    assert extractor.seen == 5


def test_work_before_a_damaged_picture_is_kept(pictures: list[FilePicture], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)
    whole = pictures[4].path.read_bytes()
    pictures[4].path.write_bytes(whole[:-60])  # its header is good
    extractor = MeanColour()
    with pytest.raises(ValueError, match=r"cannot read image .*4.png"):
        run(pictures, extractor, tmp_path)
    assert len(cache_files(tmp_path)) == 2
    pictures[4].path.write_bytes(whole)
    run(pictures, extractor, tmp_path)
    assert extractor.seen == 5


def test_pictures_of_several_sizes(pictures: list[FilePicture], tmp_path: Path) -> None:
    write_image(pictures[2].path, seed=7, size=(6, 9))
    found = run(pictures, MeanColour(), tmp_path)
    np.testing.assert_allclose(found[2, :3], np.asarray(Image.open(pictures[2].path)).mean(axis=(0, 1)), rtol=1e-6)
    with pytest.raises(ValueError, match=r"2.png is 6x9, but .*0.png is 6x8"):
        require_one_size(pictures, look_up(pictures, tmp_path / "cache"))


def test_bad_input_is_named(pictures: list[FilePicture], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images"):
        run([], MeanColour(), tmp_path)
    with pytest.raises(ValueError, match="batch_size"):
        run(pictures, MeanColour(), tmp_path, batch_size=0)
    with pytest.raises(FileNotFoundError, match="gone.png does not exist"):
        run([*pictures, FilePicture(tmp_path / "gone.png", "gone")], MeanColour(), tmp_path)
    assert not (tmp_path / "cache").exists()


class Wrong(MeanColour):
    """Extractor that gives what it is told to."""

    def __init__(self, output: np.ndarray) -> None:
        super().__init__()
        self.output = output

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.output


def test_bad_features_are_not_cached(pictures: list[FilePicture], tmp_path: Path) -> None:
    broken = np.zeros((5, 4))
    broken[2, 1] = np.nan
    for output, message in [(broken, "not finite for .*2.png"), (np.zeros((5, 3)), "expected")]:
        with pytest.raises(ValueError, match=message):
            run(pictures, Wrong(output), tmp_path)
    assert not cache_files(tmp_path)
