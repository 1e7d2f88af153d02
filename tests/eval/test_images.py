"""Decoding: pixels as a viewer shows them, for any file format."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.images import ImageFile


def image_file(path: Path) -> ImageFile:
    return ImageFile(path, path.stem)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(5, 7, 3), dtype=np.uint8)


def test_pixels_are_height_width_rgb(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(image_file(tmp_path / "a.png").pixels(), pixels)
    assert image_file(tmp_path / "a.png").size() == (5, 7)


def test_grey_palette_and_cmyk_become_rgb(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(image_file(tmp_path / "grey.png").pixels(), np.repeat(pixels[..., :1], 3, axis=2))
    few = np.where(pixels > 127, 255, 0).astype(np.uint8)
    Image.fromarray(few).convert("P", palette=Image.Palette.WEB, dither=Image.Dither.NONE).save(tmp_path / "p.png")
    np.testing.assert_array_equal(image_file(tmp_path / "p.png").pixels(), few)
    Image.new("CMYK", (7, 5), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)  # no cyan: red
    np.testing.assert_allclose(image_file(tmp_path / "cmyk.jpg").pixels()[2, 3], (255, 0, 0), atol=4)


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    """Pillow's own conversion would clip everything above 255."""
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(image_file(tmp_path / "deep.png").pixels()[0, :, 1], [0, 0, 1, 128, 255])


def test_transparency_is_composited_over_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[200, 0, 0, 255], [200, 0, 0, 0]]], dtype=np.uint8)).save(tmp_path / "rgba.png")
    assert image_file(tmp_path / "rgba.png").pixels().tolist() == [[[200, 0, 0], [255, 255, 255]]]
    Image.fromarray(np.array([[[10, 255], [10, 0]]], dtype=np.uint8)).save(tmp_path / "la.png")
    assert image_file(tmp_path / "la.png").pixels().tolist() == [[[10, 10, 10], [255, 255, 255]]]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    """The eight orientations of the EXIF standard: row 0 and column 0 lie at these edges of the image."""
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3)
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: stored.T[:, ::-1],
        7: stored.T[::-1, ::-1],
        8: stored.T[::-1],
    }
    for orientation, expected in upright.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
        found = image_file(tmp_path / "turned.png")
        np.testing.assert_array_equal(found.pixels()[..., 0], expected)
        assert found.size() == expected.shape


def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, size=(32, 32, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    for keep in (0, 20, 200):
        path.write_bytes(content[:keep])
        with pytest.raises(ValueError, match="cannot read image .*a.png"):
            image_file(path).pixels()


def test_missing_file_is_named(tmp_path: Path) -> None:
    for ask in ("pixels", "size", "digest", "stamp"):
        with pytest.raises(FileNotFoundError, match="a.png does not exist"):
            getattr(image_file(tmp_path / "a.png"), ask)()


def test_image_inside_an_archive(tmp_path: Path, pixels: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    (tmp_path / "shard").write_bytes(b"before" + buffer.getvalue() + b"after")
    found = ImageFile(tmp_path / "shard", "a", "a.png", 6, len(buffer.getvalue()))
    np.testing.assert_array_equal(found.pixels(), pixels)
    assert found.digest() == hashlib.sha256(buffer.getvalue()).hexdigest()
    assert str(found) == f"{tmp_path}/shard:a.png"
