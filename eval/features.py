"""From images to feature vectors. Features are cached under a hash of everything that decides them.

Large sets, as the crops of many images, are returned as arrays that are mapped into memory from an unnamed file in the
cache's folder: the system reads and drops their pages as needed, and the file goes with the array.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from operator import methodcaller
from pathlib import Path
from tempfile import TemporaryFile
from typing import Protocol

import numpy as np
from tqdm import tqdm

from eval.crops import WHOLE, Cropping
from eval.files import open_atomically
from eval.images import LazyImage
from eval.index import ImageInfo, look_up

CHUNK = 256  # images per cache file: at most this many are extracted again after a crash
IN_MEMORY = 2**28  # bytes of features
BATCH_PIXELS = 2**26  # decoded at a time at most: four images of 4096x4096


class FeatureExtractor(Protocol):
    """A feature space for images. If crops are compared in another one, ``for_crops`` is the extractor of that."""

    @property
    def name(self) -> str:
        """Short name, used in protocols and file names."""

    @property
    def digest(self) -> str:
        """Changes whenever the features would: weights, resizing, dtype."""

    @property
    def dim(self) -> int:
        """Length of a feature vector."""

    @property
    def side(self) -> int:
        """Side in pixels of its square input, to which it resizes images."""

    @property
    def resizing(self) -> str:
        """How it resizes, for protocols."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 images -> (N, dim) float32 features."""


def crop_extractor(extractor: FeatureExtractor) -> FeatureExtractor:
    """What extracts the features of crops: ``extractor.for_crops`` where there is one, else the extractor itself."""
    found: FeatureExtractor = getattr(extractor, "for_crops", extractor)
    return found


def extractor_for(extractor: FeatureExtractor, cropping: Cropping) -> FeatureExtractor:
    """The extractor itself for whole images, its `crop_extractor` for crops."""
    return extractor if cropping == WHOLE else crop_extractor(extractor)


def images_to_features(
    images: Sequence[LazyImage],
    extractor: FeatureExtractor,
    *,
    cache_dir: Path,
    croppings: Sequence[Cropping] = (WHOLE,),
    batch_size: int = 16,
    pool: Executor | None = None,
) -> list[np.ndarray]:
    """Extract features of all crops of all images, using the cache.

    Each image is decoded once for all croppings, and not at all if its features are cached. Replaced images and
    retrained extractors are noticed. Memory holds one batch of decoded images at a time.

    Args:
        extractor: of whole images; crops go to its `crop_extractor`.
        cache_dir: where features, and hashes and sizes of the images, are cached.
        croppings: which crops to extract features of; each gives one array.
        batch_size: images per call of the extractor at most.
        pool: decodes the images of a batch in parallel; None for threads.

    Returns:
        For each cropping (len(images) * cropping.count, dim) float32: the crops of the first image, then of the next.

    Raises:
        ValueError: no images, an image that cannot be decoded or is smaller than a crop, or features that are not
            finite or of the wrong shape. Features extracted before the error stay cached.
        FileNotFoundError: an image does not exist.
    """
    if not images:
        raise ValueError("no images to extract features from")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    infos = look_up(images, cache_dir)
    features = [empty_features(len(images), extractor, each, cache_dir) for each in croppings]
    with (
        tqdm(total=len(images), desc=f"{extractor.name} features", unit="img", leave=False, disable=None) as bar,
        nullcontext(pool) if pool else ThreadPoolExecutor() as readers,
    ):
        for start in range(0, len(images), CHUNK):
            chunk = Chunk(images[start : start + CHUNK], infos[start : start + CHUNK], start)
            entries = [cache_entry(chunk, extractor, cropping, cache_dir) for cropping in croppings]
            cached = [entry.read() for entry in entries]
            missing = [cropping for cropping, array in zip(croppings, cached, strict=True) if array is None]
            extracted = iter(extract(chunk, extractor, missing, batch_size, readers) if missing else [])
            for array, cropping, entry, rows in zip(features, croppings, entries, cached, strict=True):
                part = slice(start * cropping.count, (start + len(chunk.images)) * cropping.count)
                array[part] = entry.write(next(extracted)) if rows is None else rows
            bar.update(len(chunk.images))
    return features


def empty_features(images: int, extractor: FeatureExtractor, cropping: Cropping, folder: Path) -> np.ndarray:
    """(images * cropping.count, dim) float32, above `IN_MEMORY` in an unnamed file in ``folder``; OSError if there is
    no room for it.
    """
    rows, dim = images * cropping.count, extractor_for(extractor, cropping).dim
    size = rows * dim * np.dtype(np.float32).itemsize
    if size <= IN_MEMORY:
        return np.empty((rows, dim), np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error now, and not the end of the process later
        return np.memmap(file, np.float32, "r+", shape=(rows, dim))


@dataclass(frozen=True)
class Chunk:
    """Consecutive images of a set, from index ``start`` on."""

    images: Sequence[LazyImage]
    infos: Sequence[ImageInfo]
    start: int


@dataclass(frozen=True)
class CacheEntry:
    """A file with the features of a chunk's crops, under a ``key`` that is the hash of what decides them."""

    path: Path
    key: str
    shape: tuple[int, int]
    content: str

    def read(self) -> np.ndarray | None:
        """The cached features; None if they are missing or the file is damaged."""
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                features = stored["features"]
                good = str(stored["key"]) == self.key and features.shape == self.shape
        except Exception:  # of many kinds, as numpy and zipfile stumble over damaged files
            return None
        return features if good and features.dtype == np.float32 else None

    def write(self, features: np.ndarray) -> np.ndarray:
        """Cache the features and return them."""
        with open_atomically(self.path) as file:
            np.savez(file, features=features, key=np.array(self.key), content=np.array(self.content))
        return features


def cache_entry(chunk: Chunk, extractor: FeatureExtractor, cropping: Cropping, cache_dir: Path) -> CacheEntry:
    """Where the features of a chunk's crops are cached."""
    extractor = extractor_for(extractor, cropping)
    content: dict[str, object] = {"images": [info.digest for info in chunk.infos]}
    content["extractor"] = [extractor.name, extractor.digest]
    if cropping != WHOLE:  # crops also depend on names and indices
        content["crops"] = [str(cropping), chunk.start, [image.name for image in chunk.images]]
    text = json.dumps(content)
    key = hashlib.sha256(text.encode()).hexdigest()
    label = re.sub(r"[^A-Za-z0-9.-]+", "_", extractor.name)
    shape = len(chunk.images) * cropping.count, extractor.dim
    return CacheEntry(cache_dir / f"{label}-{key[:16]}.npz", key, shape, text)


def extract(
    chunk: Chunk, extractor: FeatureExtractor, croppings: Sequence[Cropping], batch_size: int, readers: Executor
) -> list[np.ndarray]:
    """Features of the chunk's crops, one array for each cropping."""
    rows: list[list[np.ndarray]] = [[] for _ in croppings]
    largest = max(info.height * info.width for info in chunk.infos)
    step = max(1, min(batch_size, BATCH_PIXELS // largest))
    for start in range(0, len(chunk.images), step):
        batch = chunk.images[start : start + step]
        pixels = list(readers.map(methodcaller("pixels"), batch))
        for cropping, done in zip(croppings, rows, strict=True):
            indexed = enumerate(zip(pixels, batch, strict=True), chunk.start + start)
            crops = [cropping.crops(array, image.name, index) for index, (array, image) in indexed]
            done.append(crops_to_features(crops, batch, extractor_for(extractor, cropping), batch_size))
    return [np.concatenate(arrays) for arrays in rows]


def crops_to_features(
    crops: Sequence[np.ndarray], images: Sequence[LazyImage], extractor: FeatureExtractor, batch_size: int
) -> np.ndarray:
    """(N, dim) features of the (count, h, w, 3) crops of each image; ValueError if the extractor returns a wrong shape
    or values that are not finite.
    """
    owners = [image for image, stack in zip(images, crops, strict=True) for _ in stack]
    rows: list[np.ndarray] = []
    for _, same_size in groupby(crops, key=lambda stack: stack.shape[1:]):
        stack = np.concatenate(list(same_size))
        for batch in (stack[i : i + batch_size] for i in range(0, len(stack), batch_size)):
            features = np.asarray(extractor(batch), dtype=np.float32)
            expected = (len(batch), extractor.dim)
            if features.shape != expected:
                raise ValueError(f"{extractor.name} returned features of shape {features.shape}, expected {expected}")
            rows.extend(features)
    found = np.stack(rows)
    bad = ~np.isfinite(found).all(axis=1)
    if bad.any():
        raise ValueError(f"{extractor.name} returned features that are not finite for {owners[int(bad.argmax())]}")
    return found
