"""Features of image files: order, batches, and a cache that cannot be fooled."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.features import images_to_features
from tests.eval.helpers import MeanColour


def write_image(path: Path, seed: int, size: tuple[int, int] = (6, 8)) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, size=(*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [write_image(tmp_path / f"{i}.png", seed=i) for i in range(5)]


def test_features_in_the_order_of_the_paths(paths: list[Path], tmp_path: Path) -> None:
    forward = images_to_features(paths, MeanColour(), cache_dir=tmp_path / "cache", batch_size=2)
    backward = images_to_features(paths[::-1], MeanColour(), cache_dir=tmp_path / "cache", batch_size=3)
    assert forward.shape == (5, 4)
    assert forward.dtype == np.float32
    np.testing.assert_array_equal(forward, backward[::-1])
    np.testing.assert_allclose(forward[2, :3], np.asarray(Image.open(paths[2])).mean(axis=(0, 1)), rtol=1e-6)


def test_second_call_reads_the_cache(paths: list[Path], tmp_path: Path) -> None:
    extractor = MeanColour()
    first = images_to_features(paths, extractor, cache_dir=tmp_path / "cache")
    second = images_to_features(paths, extractor, cache_dir=tmp_path / "cache")
    assert extractor.seen == 5
    np.testing.assert_array_equal(first, second)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"]


def test_replaced_image_is_noticed(paths: list[Path], tmp_path: Path) -> None:
    extractor = MeanColour()
    before = images_to_features(paths, extractor, cache_dir=tmp_path / "cache")
    write_image(paths[3], seed=99)
    after = images_to_features(paths, extractor, cache_dir=tmp_path / "cache")
    assert list((before != after).any(axis=1)) == [False, False, False, True, False]


def test_other_extractor_is_noticed(paths: list[Path], tmp_path: Path) -> None:
    images_to_features(paths, MeanColour("1"), cache_dir=tmp_path / "cache")
    retrained = MeanColour("2")
    images_to_features(paths, retrained, cache_dir=tmp_path / "cache")
    assert retrained.seen == 5


@pytest.mark.parametrize("keep", [0, 30, 200])
def test_damaged_cache_is_made_again(paths: list[Path], tmp_path: Path, keep: int) -> None:
    first = images_to_features(paths, MeanColour(), cache_dir=tmp_path / "cache")
    (cache,) = (tmp_path / "cache").iterdir()
    cache.write_bytes(cache.read_bytes()[:keep])
    extractor = MeanColour()
    np.testing.assert_array_equal(images_to_features(paths, extractor, cache_dir=tmp_path / "cache"), first)
    assert extractor.seen == 5


def test_bad_input_is_named(paths: list[Path], tmp_path: Path) -> None:
    def run(images: list[Path], **options) -> None:
        images_to_features(images, MeanColour(), cache_dir=tmp_path / "cache", **options)

    with pytest.raises(ValueError, match="no images"):
        run([])
    with pytest.raises(ValueError, match="batch_size"):
        run(paths, batch_size=0)
    with pytest.raises(FileNotFoundError, match="gone.png does not exist"):
        run([*paths, tmp_path / "gone.png"])
    with pytest.raises(ValueError, match=r"wide.png is 6x9, but .*0.png is 6x8"):
        run([*paths, write_image(tmp_path / "wide.png", seed=0, size=(6, 9))], batch_size=2)
    assert not (tmp_path / "cache").exists()


class Wrong(MeanColour):
    """Extractor that gives what it is told to."""

    def __init__(self, output: np.ndarray) -> None:
        super().__init__()
        self.output = output

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.output


def test_bad_features_are_not_cached(paths: list[Path], tmp_path: Path) -> None:
    broken = np.zeros((5, 4))
    broken[2, 1] = np.nan
    for output, message in [(broken, "not finite for .*2.png"), (np.zeros((5, 3)), "expected")]:
        with pytest.raises(ValueError, match=message):
            images_to_features(paths, Wrong(output), cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
