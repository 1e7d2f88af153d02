"""Seeded features and images, a tiny extractor, and tar shards for the evaluation tests."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from eval.uncertainty import Estimate


def features(n: int, dim: int, *, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    """(n, dim) float64 features with correlated, unequal dimensions, like those of a network."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(dim).normal(size=(dim, dim)) / np.sqrt(dim)
    return rng.normal(size=(n, dim)) * np.linspace(1.5, 0.2, dim) @ mixing + shift


class MeanColour:
    """Extractor of four numbers per image that counts the images it has seen."""

    name = "mean colour/4"
    dim = 4
    resizing = "none"

    def __init__(self, digest: str = "1") -> None:
        self.digest = digest
        self.seen = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        self.seen += len(images)
        means = images.reshape(len(images), -1, 3).mean(axis=1)
        return np.concatenate([means, means[:, :1] ** 2], axis=1).astype(np.float32)


def smooth_images(n: int, height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """(n, height, width, 3) uint8 images with gradients and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.sin(x[None, ..., None] / rng.uniform(5, 40, (n, 1, 1, 3)) + y[None, ..., None] / 30) * 90 + 128
    return np.clip(waves + rng.normal(0, 12, (n, height, width, 3)), 0, 255).astype(np.uint8)


def encode_png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def write_shard(path: Path, files: dict[str, bytes]) -> Path:
    """A tar file with these members in this order."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def jackknife_of(means: np.ndarray) -> Estimate:
    """Estimate of the mean of (g,) independent group means of equally large groups."""
    without = (means.sum() - means) / (len(means) - 1)
    return Estimate(float(means.mean()), tuple(without), (2,) * len(means))
