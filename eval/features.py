"""From image files to feature vectors, once: results are cached under the hash of what went in."""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from eval.images import file_sha256, load_image


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

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 images to (N, dim) float32 features."""


def images_to_features(
    paths: Sequence[Path], extractor: FeatureExtractor, *, cache_dir: Path, batch_size: int = 16
) -> np.ndarray:
    """Features of image files, (N, dim) float32, in the order of `paths`.

    The cache key is made of the files' bytes in their order and of the extractor's name and digest, so a replaced
    image or a retrained extractor is noticed. Only one batch of pixels is in memory at a time.

    Raises:
        ValueError: no paths, a file that cannot be decoded, images of different sizes, features of the wrong shape or
            not finite.
        FileNotFoundError: a path that does not exist.
    """
    if not paths:
        raise ValueError("no images to extract features from")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(f"image {missing[0]} does not exist ({len(missing)} of {len(paths)} missing)")
    key = _cache_key([file_sha256(path) for path in paths], extractor)
    label = re.sub(r"[^A-Za-z0-9.-]+", "_", extractor.name)
    cache = Path(cache_dir) / f"{label}-{key[:16]}.npz"
    features = _read_cache(cache, key, shape=(len(paths), extractor.dim))
    if features is None:
        features = _extract(paths, extractor, batch_size)
        _write_cache(cache, key, features)
    return features


def _cache_key(image_digests: Sequence[str], extractor: FeatureExtractor) -> str:
    content = {"images": list(image_digests), "extractor": [extractor.name, extractor.digest]}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _extract(paths: Sequence[Path], extractor: FeatureExtractor, batch_size: int) -> np.ndarray:
    features = np.empty((len(paths), extractor.dim), dtype=np.float32)
    starts = range(0, len(paths), batch_size)
    size = None
    for start in tqdm(starts, desc=f"{extractor.name} features", unit="batch", leave=False, disable=None):
        names = paths[start : start + batch_size]
        images = [load_image(path) for path in names]
        size = size or images[0].shape
        for path, image in zip(names, images, strict=True):
            if image.shape != size:
                raise ValueError(
                    f"{path} is {image.shape[0]}x{image.shape[1]}, but {paths[0]} is {size[0]}x{size[1]} "
                    "(height x width): score images of one size at a time"
                )
        batch = np.asarray(extractor(np.stack(images)))
        if batch.shape != (len(names), extractor.dim):
            raise ValueError(f"{extractor.name} gave features {batch.shape}, expected {(len(names), extractor.dim)}")
        bad = ~np.isfinite(batch).all(axis=1)
        if bad.any():
            raise ValueError(f"{extractor.name} gave features that are not finite for {names[int(bad.argmax())]}")
        features[start : start + len(names)] = batch
    return features


def _read_cache(path: Path, key: str, shape: tuple[int, int]) -> np.ndarray | None:
    """The cached features, or None if there are none or the file is damaged (then they are made again)."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            features = stored["features"]
            good = str(stored["key"]) == key and features.shape == shape and features.dtype == np.float32
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    return features if good else None


def _write_cache(path: Path, key: str, features: np.ndarray) -> None:
    """Written under a temporary name and renamed, so a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, features=features, key=np.array(key))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
