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

from eval.crops import Crops
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
    paths: Sequence[Path],
    extractor: FeatureExtractor,
    *,
    cache_dir: Path,
    batch_size: int = 16,
    crops: Crops | None = None,
    mixed_sizes: bool = False,
) -> np.ndarray:
    """Features of image files, (N, dim) float32, in the order of `paths`; of their crops, (N * count, dim), image by
    image.

    The cache key is made of the files' bytes in their order and of the extractor's name and digest, so a replaced
    image or a retrained extractor is noticed. Only one batch of pixels is in memory at a time. Without crops all
    images must have one size, unless ``mixed_sizes`` says that the extractor resizes each of them.

    Raises:
        ValueError: no paths, a file that cannot be decoded, images of different sizes or below a crop's, features of
            the wrong shape or not finite.
        FileNotFoundError: a path that does not exist.
    """
    if not paths:
        raise ValueError("no images to extract features from")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(f"image {missing[0]} does not exist ({len(missing)} of {len(paths)} missing)")
    key = _cache_key(paths, extractor, crops)
    label = re.sub(r"[^A-Za-z0-9.-]+", "_", extractor.name)
    cache = Path(cache_dir) / f"{label}-{key[:16]}.npz"
    rows = len(paths) * (crops.count if crops else 1)
    features = _read_cache(cache, key, shape=(rows, extractor.dim))
    if features is None:
        features = _extract(paths, extractor, batch_size, crops, mixed_sizes)
        _write_cache(cache, key, features)
    return features


def _cache_key(paths: Sequence[Path], extractor: FeatureExtractor, crops: Crops | None) -> str:
    content: dict[str, object] = {"images": [file_sha256(path) for path in paths]}
    content["extractor"] = [extractor.name, extractor.digest]
    if crops:
        content["crops"] = [crops.size, crops.count, crops.seed, [Path(path).stem for path in paths]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _extract(
    paths: Sequence[Path], extractor: FeatureExtractor, batch_size: int, crops: Crops | None, mixed_sizes: bool
) -> np.ndarray:
    rows = []
    starts = range(0, len(paths), batch_size)
    size = None
    for start in tqdm(starts, desc=f"{extractor.name} features", unit="batch", leave=False, disable=None):
        names = paths[start : start + batch_size]
        images = [load_image(path) for path in names]
        size = size or images[0].shape
        different = [path for path, image in zip(names, images, strict=True) if image.shape != size]
        if crops:
            stacks = [crops.cut(image, Path(path).stem) for image, path in zip(images, names, strict=True)]
            rows += _checked(extractor, [np.concatenate(stacks)], names, crops.count)
        elif not different:
            rows += _checked(extractor, [np.stack(images)], names, 1)
        elif mixed_sizes:
            rows += _checked(extractor, [image[None] for image in images], names, 1)
        else:
            shape = images[names.index(different[0])].shape
            raise ValueError(
                f"{different[0]} is {shape[0]}x{shape[1]}, but {paths[0]} is {size[0]}x{size[1]} "
                "(height x width): score images of one size at a time"
            )
    return np.concatenate(rows)


def _checked(
    extractor: FeatureExtractor, stacks: Sequence[np.ndarray], names: Sequence[Path], rows_per_image: int
) -> list[np.ndarray]:
    """Features of each stack of images, of the right shape and finite, or an error that names the image."""
    found = [np.asarray(extractor(stack), dtype=np.float32) for stack in stacks]
    for stack, batch in zip(stacks, found, strict=True):
        if batch.shape != (len(stack), extractor.dim):
            raise ValueError(f"{extractor.name} gave features {batch.shape}, expected {(len(stack), extractor.dim)}")
    bad = ~np.isfinite(np.concatenate(found)).all(axis=1)
    if bad.any():
        culprit = names[int(bad.argmax()) // rows_per_image]
        raise ValueError(f"{extractor.name} gave features that are not finite for {culprit}")
    return found


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
