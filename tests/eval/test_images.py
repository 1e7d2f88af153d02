"""Image files in, pixels and hashes out."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.images import file_sha256, list_images, load_image


def test_lists_images_sorted_and_nothing_else(tmp_path: Path) -> None:
    for name in ["b.png", "a.JPG", "notes.txt", ".c.png.tmp"]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.png"]


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder of images at .*nowhere"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no images"):
        list_images(tmp_path)


def test_loads_height_width_rgb(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), pixels)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    assert load_image(tmp_path / "grey.png").shape == (5, 7, 3)


@pytest.mark.parametrize("keep", [0, 20, 200])
def test_damaged_file_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, size=(32, 32, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="cannot read image .*a.png"):
        load_image(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="a.png does not exist"):
        load_image(tmp_path / "a.png")


def test_hash_is_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000  # more than one piece
    (tmp_path / "a").write_bytes(content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
