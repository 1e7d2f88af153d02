"""Pictures as the evaluation sees them: their names, their bytes, their pixels."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L")


class Picture(Protocol):
    """A picture that is read when it is needed."""

    @property
    def name(self) -> str:
        """What it is called in its set, without a suffix: decides where it is cropped."""

    def stamp(self) -> str:
        """Known without reading the picture, and another one once the picture was replaced."""

    def digest(self) -> str:
        """Hex SHA-256 of what decides the pixels."""

    def size(self) -> tuple[int, int]:
        """(height, width)."""

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8."""


@dataclass(frozen=True)
class FilePicture:
    """A picture in a file of its own or, with ``member``, ``length`` bytes from ``start`` on in an archive."""

    path: Path
    name: str
    member: str = ""
    start: int = 0
    length: int | None = None

    def __str__(self) -> str:
        return f"{self.path}{self.member and ':'}{self.member}"

    def stamp(self) -> str:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            raise FileNotFoundError(f"image {self} does not exist") from None
        return f"{self} {self.start} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"

    def read(self) -> bytes:
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
                # Asked for EXIF that its header lacks, Pillow decodes a PNG as a whole.
                header_tells = image.format != "PNG" or "exif" in image.info
                turned = header_tells and image.getexif().get(0x0112) in ROTATED
                return (width, height) if turned else (height, width)
        except UNREADABLE as error:
            raise unreadable(str(self), error) from error

    def pixels(self) -> np.ndarray:
        return decode(self.read(), str(self))


UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises on damaged files


def unreadable(name: str, error: Exception) -> ValueError:
    reason = "not a picture" if "cannot identify" in str(error) else " ".join(str(error).split())
    return ValueError(f"cannot read image {name}: {reason}; make it again or remove it")


def decode(content: bytes, name: str) -> np.ndarray:
    """Pixels of an encoded picture as a viewer shows them, (H, W, 3) uint8: turned as its EXIF says, CMYK as RGB,
    transparency over white, 16 bits reduced to 8. ValueError with ``name`` if it cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.array(as_rgb(ImageOps.exif_transpose(image)))
    except UNREADABLE as error:
        raise unreadable(name, error) from error


def as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in SIXTEEN_BITS:
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
