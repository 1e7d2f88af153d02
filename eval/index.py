"""Hashes and sizes of images, cached under each file's stamp: unchanged images are not read again, as in git."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from tqdm import tqdm

from eval.files import write_atomically
from eval.images import LazyImage

FILE = "index.json"


@dataclass(frozen=True)
class ImageInfo:
    """Hex SHA-256 of what decides the pixels, and height and width in pixels."""

    digest: str
    height: int
    width: int


def look_up(images: Sequence[LazyImage], cache_dir: Path) -> list[ImageInfo]:
    """Hash and size of each image: from ``cache_dir`` if its stamp is known, otherwise by reading it once.

    Raises:
        ValueError: an image cannot be read. What was found before it stays cached.
        FileNotFoundError: an image does not exist.
    """
    stamps = [image.stamp() for image in images]
    known = read_index(cache_dir / FILE)
    pending = {stamp: image for stamp, image in zip(stamps, images, strict=True) if stamp not in known}
    try:
        for stamp, image in tqdm(pending.items(), desc="indexing images", unit="img", leave=False, disable=None):
            known[stamp] = ImageInfo(image.digest(), *image.size())
    finally:
        if pending:
            index = {stamp: astuple(info) for stamp, info in known.items()}
            write_atomically(cache_dir / FILE, json.dumps(index))
    return [known[stamp] for stamp in stamps]


def read_index(path: Path) -> dict[str, ImageInfo]:
    """The cached index; empty if it is missing or damaged, in which case `look_up` rebuilds it."""
    try:
        return {stamp: ImageInfo(*values) for stamp, values in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def require_one_size(images: Sequence[LazyImage], infos: Sequence[ImageInfo]) -> tuple[int, int]:
    """(height, width) of all images; ValueError naming two images that differ."""
    first = (infos[0].height, infos[0].width)
    for image, info in zip(images, infos, strict=True):
        if (info.height, info.width) != first:
            raise ValueError(
                f"{image} is {info.height}x{info.width}, but {images[0]} is {first[0]}x{first[1]} "
                "(height x width): score generated images of one size at a time"
            )
    return first
