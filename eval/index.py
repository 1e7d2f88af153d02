"""Hashes and sizes of images, cached under each file's stamp: unchanged images are not read again, as in git.

A stamp has the file's size and the times of its last changes. What changes a file behind the file system's back, as a
decaying disk does, keeps the stamp: `confirm` with ``trust=False`` reads every image.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass
from operator import methodcaller
from pathlib import Path

from tqdm import tqdm

from eval.files import write_atomically
from eval.images import LazyImage

FILE, CRC = "index.json", "crc32"


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
    found = [stamp is not None for stamp in stamps]
    doubtful = [
        i for i, stamp in enumerate(stamps) if stamp is not None and not (trust and known.get(stamp) == expected[i])
    ]
    with ThreadPoolExecutor() as pool:
        digests = pool.map(methodcaller("digest"), [images[i] for i in doubtful])
        bar = tqdm(digests, "checking images", len(doubtful), unit="img", leave=False, disable=None, delay=1)
        for i, digest in zip(doubtful, bar, strict=True):
            found[i] = digest == expected[i].digest
    for stamp in stamps:
        known.pop(str(stamp), None)
    known |= {stamp: info for stamp, info, good in zip(stamps, expected, found, strict=True) if stamp and good}
    if known != before:
        with suppress(OSError):
            write_index(cache_dir / FILE, known)
    return found


def remember(images: Sequence[LazyImage], infos: Sequence[ImageInfo], cache_dir: Path) -> None:
    """Make hashes and sizes of images that were just written known, without reading them."""
    new = {stamp: info for image, info in zip(images, infos, strict=True) if (stamp := stamp_of(image))}
    with suppress(OSError):
        write_index(cache_dir / FILE, read_index(cache_dir / FILE) | new)


def stamp_of(image: LazyImage) -> str | None:
    """None where there is no file."""
    try:
        return image.stamp()
    except FileNotFoundError:
        return None


def write_index(path: Path, known: Mapping[str, ImageInfo]) -> None:
    images = {stamp: astuple(info) for stamp, info in known.items()}
    write_atomically(path, json.dumps(images | {CRC: checksum(images)}))


def checksum(images: Mapping[str, Sequence[object]]) -> int:
    """CRC-32 of an index, by which one that was changed is noticed; older ones have none."""
    return zlib.crc32(json.dumps(images).encode())


def read_index(path: Path) -> dict[str, ImageInfo]:
    """The cached index; empty if it is missing or damaged, in which case `look_up` rebuilds it."""
    try:
        images = json.loads(path.read_bytes())
        if images.pop(CRC, None) not in (None, checksum(images)):
            return {}
        return {stamp: ImageInfo(*values) for stamp, values in images.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
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
