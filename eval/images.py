"""Images that are read on demand: name, hash, size and pixels."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

ORIENTATION = 0x0112  # EXIF tag
ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L")


class LazyImage(Protocol):
    """An image that is read or rendered on demand."""

    @property
    def name(self) -> str:
        """Name in its set, without suffix. Seeds crop positions."""

    def stamp(self) -> str:
        """Changes when the image is replaced; known without reading the image."""

    def digest(self) -> str:
        """Hex SHA-256 of what decides the pixels."""

    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""


@dataclass(frozen=True)
class ImageFile:
    """An encoded image: a whole file or, with ``member``, ``length`` bytes from ``start`` on in an archive."""

    path: Path
    name: str
    member: str = ""
    start: int = 0
    length: int | None = None

    def __str__(self) -> str:
        return f"{self.path}{self.member and ':'}{self.member}"

    def stamp(self) -> str:
        try:
            stat = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(f"image {self} does not exist") from None
        if not S_ISREG(stat.st_mode):
            raise FileNotFoundError(f"image {self} is no file")
        return f"{self} {self.start} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"

    def read(self) -> bytes:
        """The encoded bytes."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.start)
                return stream.read() if self.length is None else stream.read(self.length)
        except FileNotFoundError:
            raise FileNotFoundError(f"image {self} does not exist") from None

    def digest(self) -> str:
        return hashlib.sha256(self.read()).hexdigest()

    def size(self) -> tuple[int, int]:
        content = self.read()
        try:
            with Image.open(io.BytesIO(content)) as image:
                width, height = image.size
                # For a PNG without EXIF in its header, getexif would decode the whole image.
                has_exif = image.format != "PNG" or "exif" in image.info
                turned = has_exif and image.getexif().get(ORIENTATION) in ROTATED
                return (width, height) if turned else (height, width)
        except Exception as error:  # of many kinds, as Pillow stumbles over damaged files
            raise unreadable(str(self), error) from error

    def pixels(self) -> np.ndarray:
        return decode(self.read(), str(self))


def unreadable(name: str, error: Exception) -> ValueError:
    """The error to raise for an image that Pillow cannot read."""
    reason = "not an image" if "cannot identify" in str(error) else " ".join(str(error).split())
    return ValueError(f"cannot read image {name}: {reason}; create it again or remove it")


def decode(content: bytes, name: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB pixels of an encoded image as a viewer shows it: EXIF orientation applied, CMYK converted,
    transparency over white, 16 bits reduced to 8. ValueError with ``name`` if it cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.array(as_rgb(ImageOps.exif_transpose(image)))
    except Exception as error:  # of many kinds, as Pillow stumbles over damaged files
        raise unreadable(name, error) from error


def as_rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB; transparency over white, 16 bits reduced to 8."""
    if image.mode in SIXTEEN_BIT_MODES:  # Pillow's own conversion clips values above 255
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
