"""From pictures to feature vectors, once: results are cached under the hash of what went in."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from operator import methodcaller
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from eval.crops import WHOLE, Cut
from eval.images import Picture
from eval.index import Facts, look_up

CHUNK = 256  # pictures in one cache file: what an error or a crash can cost
BATCH_PIXELS = 2**26  # read at a time at most: four pictures of 4096x4096


class FeatureExtractor(Protocol):
    """A feature space for images."""

    @property
    def name(self) -> str:
        """Short name, as it appears in protocols and file names."""

    @property
    def digest(self) -> str:
        """Changes whenever the features would: weights, resizing, dtype."""

    @property
    def dim(self) -> int:
        """Length of a feature vector."""

    @property
    def side(self) -> int:
        """Pixels of its square input, to which it resizes."""

    @property
    def resizing(self) -> str:
        """How it resizes, for protocols."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 images to (N, dim) float32 features."""


def images_to_features(
    pictures: Sequence[Picture],
    extractor: FeatureExtractor,
    *,
    cache_dir: Path,
    cuts: Sequence[Cut] = (WHOLE,),
    batch_size: int = 16,
    pool: Executor | None = None,
) -> list[np.ndarray]:
    """For each cut the features of the pictures' parts, (N * count, dim) float32, picture by picture in their order.

    Every picture is decoded once, whatever the number of cuts, and only a batch of them is in memory at a time; what
    is in the cache is not decoded at all. A replaced picture or a retrained extractor is noticed.

    Args:
        pool: reads the pictures of a batch side by side; None: threads.

    Raises:
        ValueError: no pictures, one that cannot be decoded or is too small for a cut, features of the wrong shape or
            not finite. What was found before stays in the cache.
        FileNotFoundError: a picture that is not there.
    """
    if not pictures:
        raise ValueError("no images to extract features from")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    facts = look_up(pictures, cache_dir)
    found: list[list[np.ndarray]] = [[] for _ in cuts]
    with (
        tqdm(total=len(pictures), desc=f"{extractor.name} features", unit="img", leave=False, disable=None) as bar,
        nullcontext(pool) if pool else ThreadPoolExecutor() as readers,
    ):
        for start in range(0, len(pictures), CHUNK):
            chunk = Chunk(pictures[start : start + CHUNK], facts[start : start + CHUNK], start)
            entries = [cache_entry(chunk, extractor, cut, cache_dir) for cut in cuts]
            cached = [entry.read() for entry in entries]
            missing = [cut for cut, array in zip(cuts, cached, strict=True) if array is None]
            made = iter(extract(chunk, extractor, missing, batch_size, readers) if missing else [])
            for rows, entry, array in zip(found, entries, cached, strict=True):
                rows.append(entry.write(next(made)) if array is None else array)
            bar.update(len(chunk.pictures))
    return [np.concatenate(rows) for rows in found]


@dataclass(frozen=True)
class Chunk:
    """Some pictures of a set, from the ``start``-th on."""

    pictures: Sequence[Picture]
    facts: Sequence[Facts]
    start: int


@dataclass(frozen=True)
class CacheEntry:
    """A file with the features of a chunk's parts."""

    path: Path
    key: str
    shape: tuple[int, int]

    def read(self) -> np.ndarray | None:
        """The cached features, or None if there are none or the file is damaged (then they are made again)."""
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                features = stored["features"]
                good = str(stored["key"]) == self.key and features.shape == self.shape
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            return None
        return features if good and features.dtype == np.float32 else None

    def write(self, features: np.ndarray) -> np.ndarray:
        """The features, now cached: written under a temporary name and renamed, so nobody reads half a file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                np.savez(file, features=features, key=np.array(self.key))
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        return features


def cache_entry(chunk: Chunk, extractor: FeatureExtractor, cut: Cut, cache_dir: Path) -> CacheEntry:
    content: dict[str, object] = {"images": [facts.digest for facts in chunk.facts]}
    content["extractor"] = [extractor.name, extractor.digest]
    if cut != WHOLE:
        content["cut"] = [str(cut), chunk.start, [picture.name for picture in chunk.pictures]]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    label = re.sub(r"[^A-Za-z0-9.-]+", "_", extractor.name)
    return CacheEntry(cache_dir / f"{label}-{key[:16]}.npz", key, (len(chunk.pictures) * cut.count, extractor.dim))


def extract(
    chunk: Chunk, extractor: FeatureExtractor, cuts: Sequence[Cut], batch_size: int, readers: Executor
) -> list[np.ndarray]:
    """Features of the chunk's parts for each cut."""
    rows: list[list[np.ndarray]] = [[] for _ in cuts]
    largest = max(facts.height * facts.width for facts in chunk.facts)
    step = max(1, min(batch_size, BATCH_PIXELS // largest))
    for start in range(0, len(chunk.pictures), step):
        batch = chunk.pictures[start : start + step]
        images = list(readers.map(methodcaller("pixels"), batch))
        for cut, done in zip(cuts, rows, strict=True):
            places = enumerate(zip(images, batch, strict=True), chunk.start + start)
            parts = [cut.parts(image, picture.name, index) for index, (image, picture) in places]
            done.append(part_features(parts, batch, extractor, batch_size))
    return [np.concatenate(each) for each in rows]


def part_features(
    parts: Sequence[np.ndarray], pictures: Sequence[Picture], extractor: FeatureExtractor, batch_size: int
) -> np.ndarray:
    """Features of the parts of each picture, of the right shape and finite, or an error that names the picture."""
    owners = [picture for picture, stack in zip(pictures, parts, strict=True) for _ in stack]
    rows: list[np.ndarray] = []
    for _, alike in groupby(parts, key=lambda stack: stack.shape[1:]):
        stack = np.concatenate(list(alike))
        for batch in (stack[i : i + batch_size] for i in range(0, len(stack), batch_size)):
            features = np.asarray(extractor(batch), dtype=np.float32)
            if features.shape != (len(batch), extractor.dim):
                expected = (len(batch), extractor.dim)
                raise ValueError(f"{extractor.name} gave features {features.shape}, expected {expected}")
            rows.extend(features)
    found = np.stack(rows)
    bad = ~np.isfinite(found).all(axis=1)
    if bad.any():
        raise ValueError(f"{extractor.name} gave features that are not finite for {owners[int(bad.argmax())]}")
    return found
