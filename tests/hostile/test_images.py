"""Damaged images and decompression bombs: one line that names the file, and no memory that they ask for."""

import io
import struct
import tracemalloc
import zlib
from random import Random

import numpy as np
import pytest
from PIL import Image

from eval.image_sets import find_images
from eval.images import decode
from eval.index import look_up
from tests.hostile.inputs import BOTH, damaged, error_of

MODES = {
    "PNG": ["RGB", "RGBA", "P", "L", "LA", "1", "I;16"],
    "JPEG": ["RGB", "L", "CMYK"],
    "WEBP": ["RGB", "RGBA"],
    "GIF": ["P"],
    "TIFF": ["RGB", "L", "F"],
    "BMP": ["RGB"],
    "ICO": ["RGBA"],
    "PPM": ["RGB"],
    "TGA": ["RGB"],
    "DDS": ["RGBA"],
    "PCX": ["RGB"],
    "JPEG2000": ["RGB"],
}


def encoded(kind: str, mode: str) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}
    made = Image.fromarray(pixels[..., 0].astype(np.uint16) << 8) if mode == "I;16" else image.convert(mode)
    made.save(stream, kind, **options)
    return stream.getvalue()


WHOLE = [encoded(kind, mode) for kind, modes in MODES.items() for mode in modes]


@pytest.mark.parametrize("count", BOTH)
def test_damaged_images(count):
    random = Random(3)
    for index in range(8 * count):
        content = damaged(random, WHOLE[index % len(WHOLE)])
        error = error_of(lambda content=content: decode(content, "the image"))
        assert error is None or "the image" in str(error)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


ZEROS = zlib.compress(bytes(10**8), 9)  # 100 MB in 100 kB
BOMBS = {
    "pixels": png(60_000, 60_000, chunk(b"IDAT", ZEROS)),
    "one side": png(2**31 - 1, 2**31 - 1, chunk(b"IDAT", ZEROS)),
    "no pixels": png(0, 0, chunk(b"IDAT", ZEROS)),
    "text": png(8, 8, chunk(b"zTXt", b"a\0\0" + ZEROS), chunk(b"IDAT", zlib.compress(bytes(8 * 25)))),
    "profile": png(8, 8, chunk(b"iCCP", b"a\0\0" + ZEROS), chunk(b"IDAT", zlib.compress(bytes(8 * 25)))),
    "lying": png(8, 8, chunk(b"IDAT", ZEROS)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_take_no_memory(tmp_path, name):
    (tmp_path / "bomb.png").write_bytes(BOMBS[name])
    tracemalloc.start()
    try:
        (image,) = find_images(tmp_path)
        for action in (image.size, image.pixels, lambda: look_up([image], tmp_path / "cache")):
            error = error_of(action)
            assert error is None or "bomb.png" in str(error)
        assert tracemalloc.get_traced_memory()[1] < 2e8
    finally:
        tracemalloc.stop()
