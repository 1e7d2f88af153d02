"""Hashes and sizes of images, cached under each file's stamp: unchanged images are not read again, as in git.

A stamp has the file's size and the times of its last changes. What changes a file behind the file system's back, as a
decaying disk does, keeps the stamp: `confirm` with ``trust=False`` reads every image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
            write_index(cache_dir / FILE, known)
    return [known[stamp] for stamp in stamps]


def confirm(
    images: Sequence[LazyImage], expected: Sequence[ImageInfo], cache_dir: Path, *, trust: bool = True
) -> list[bool]:
    """Whether each image exists and has the expected hash. Those that have are known to `look_up` from then on.

    Args:
        images: where the images should be.
        expected: hash and size of each.
        cache_dir: as of `look_up`; if nothing can be written there, nothing is remembered.
        trust: believe the hash that is known for an image's stamp; False reads every image.

    Raises:
        OSError: an image exists and cannot be read.
    """
    known = read_index(cache_dir / FILE)
    before = dict(known)
    stamps = [stamp_of(image) for image in images]

    def check(image: LazyImage, stamp: str | None, info: ImageInfo) -> bool:
        if stamp is None or (trust and known.get(stamp) == info):
            return stamp is not None
        return image.digest() == info.digest

    with ThreadPoolExecutor() as pool:
        checks = pool.map(check, images, stamps, expected)
        found = list(tqdm(checks, "checking images", len(images), unit="img", leave=False, disable=None, delay=1))
    for stamp, info, good in zip(stamps, expected, found, strict=True):
        if stamp is not None and good:
            known[stamp] = info
        elif stamp is not None:
            known.pop(stamp, None)
    if known != before:
        with suppress(OSError):
            write_index(cache_dir / FILE, known)
    return found


def stamp_of(image: LazyImage) -> str | None:
    """None for an image that does not exist."""
    try:
        return image.stamp()
    except FileNotFoundError:
        return None


def write_index(path: Path, known: Mapping[str, ImageInfo]) -> None:
    write_atomically(path, json.dumps({stamp: astuple(info) for stamp, info in known.items()}))


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
