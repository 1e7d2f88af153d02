"""Seeded features and a tiny extractor for the evaluation tests."""

import numpy as np


def features(n: int, dim: int, *, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    """(n, dim) float64 features with correlated, unequal dimensions, like those of a network."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(dim).normal(size=(dim, dim)) / np.sqrt(dim)
    return rng.normal(size=(n, dim)) * np.linspace(1.5, 0.2, dim) @ mixing + shift


class MeanColour:
    """Extractor of four numbers per image that counts how many images it has seen."""

    name = "mean colour/4"
    dim = 4

    def __init__(self, digest: str = "1") -> None:
        self.digest = digest
        self.seen = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        self.seen += len(images)
        means = images.reshape(len(images), -1, 3).mean(axis=1)
        return np.concatenate([means, means[:, :1] ** 2], axis=1).astype(np.float32)


def smooth_images(n: int, height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """(n, height, width, 3) uint8 pictures with gradients and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.sin(x[None, ..., None] / rng.uniform(5, 40, (n, 1, 1, 3)) + y[None, ..., None] / 30) * 90 + 128
    return np.clip(waves + rng.normal(0, 12, (n, height, width, 3)), 0, 255).astype(np.uint8)
