"""Fréchet distance between Gaussians fitted to two sets of features (FID; Heusel et al. 2017, arXiv 1706.08500).

    d² = |μ₁ − μ₂|² + tr S₁ + tr S₂ − 2 tr (S₁ S₂)^½

No matrix square root of S₁ S₂ is taken: the product is not symmetric, and it is singular if there are fewer images
than dimensions. With any factors S₁ = AᵀA and S₂ = BᵀB the last trace is the nuclear norm of A Bᵀ (the sum of its
singular values). For n ≤ dim the centred features are such factors, which makes the distance exact; for n > dim a
Cholesky factor and one symmetric eigenvalue problem are used. Everything is float64, but features may be float32, also
in a file that is mapped into memory (`eval.features`): they are converted a chunk of rows at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CHUNK = 4096  # rows


@dataclass(frozen=True)
class Stats:
    """Mean (dim,), unbiased covariance (dim, dim), both float64, and the number of images they come from."""

    mean: np.ndarray
    cov: np.ndarray
    n: int


def features_to_stats(features: np.ndarray) -> Stats:
    """Moments of (n, dim) features; ValueError if n < 2 or a value is not finite."""
    features = checked_features(features)
    n, dim = features.shape
    total, scatter = np.zeros(dim), np.zeros((dim, dim))
    for part in float64_chunks(features):
        total += part.sum(axis=0)
    mean = total / n
    for part in float64_chunks(features):
        part -= mean
        scatter += part.T @ part
    return Stats(mean, scatter / (n - 1), n)


def stats_without(stats: Stats, dropped: np.ndarray) -> Stats:
    """Moments without the rows ``dropped`` (k, dim), by a downdate instead of a pass over all features."""
    k, n = len(dropped), stats.n
    total, scatter = np.zeros(len(stats.mean)), (n - 1) * stats.cov
    for part in float64_chunks(dropped):
        part -= stats.mean
        total += part.sum(axis=0)
        scatter -= part.T @ part
    scatter -= np.outer(total, total) / (n - k)
    return Stats(stats.mean - total / (n - k), scatter / (n - k - 1), n - k)


def stats_to_fid(a: Stats, b: Stats) -> float:
    """Fréchet distance from moments; negative only by rounding."""
    check_dimensions(a.mean.shape[0], b.mean.shape[0])
    dim = a.mean.shape[0]
    if min(a.n, b.n) > dim:
        cross = _cross_trace(cov_factor(b), a.cov)
    else:
        cross = nuclear_norm(cov_factor(a) @ cov_factor(b).T)
    return _distance(a.mean - b.mean, float(np.trace(a.cov) + np.trace(b.cov)), cross)


def features_to_fid(x: np.ndarray, y: np.ndarray) -> float:
    """Fréchet distance between two sets of features (Heusel et al. 2017, arXiv 1706.08500).

    Args:
        x: (n, dim) features; n may be smaller than dim.
        y: (m, dim) features.

    Returns:
        A float64 number of at least 0, but for rounding, with a bias of about c / n.

    Raises:
        ValueError: fewer than two images on a side, values that are not finite, or different dimensions.
    """
    x, y = checked_features(x), checked_features(y)
    check_dimensions(x.shape[1], y.shape[1])
    return FixedReference(y).fid(x)


class FixedReference:
    """The reference side of the distance, prepared once for many evaluations (the jackknife)."""

    def __init__(self, reference: np.ndarray | Stats) -> None:
        """reference: (m, dim) features of the reference images, or their moments."""
        features = np.empty(0) if isinstance(reference, Stats) else checked_features(reference)
        self.full_rank = isinstance(reference, Stats) or len(features) > features.shape[1]
        if self.full_rank:
            stats = reference if isinstance(reference, Stats) else features_to_stats(features)
            self.mean, self.trace, self.factor = stats.mean, float(np.trace(stats.cov)), cov_factor(stats)
        else:
            self.mean, self.factor = _feature_factor(features)
            self.trace = float(np.square(self.factor).sum())

    def fid(self, features: np.ndarray) -> float:
        """Fréchet distance of (n, dim) features to the reference."""
        features = checked_features(features)
        if self.full_rank and len(features) > features.shape[1]:
            return self.fid_of_stats(features_to_stats(features))
        mean, factor = _feature_factor(features)
        cross = nuclear_norm(factor @ self.factor.T)
        return _distance(mean - self.mean, self.trace + float(np.square(factor).sum()), cross)

    def fid_of_stats(self, stats: Stats) -> float:
        """Fréchet distance of moments to the reference; n must exceed dim on both sides."""
        cross = _cross_trace(self.factor, stats.cov)
        return _distance(stats.mean - self.mean, self.trace + float(np.trace(stats.cov)), cross)


def checked_features(features: np.ndarray) -> np.ndarray:
    """The features, float32 or float64; ValueError unless (n >= 2, dim) and finite."""
    if features.dtype not in (np.float32, np.float64):
        features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2:
        raise ValueError(f"features must be (n, dim), not of shape {features.shape}")
    if len(features) < 2:
        raise ValueError(f"a score needs at least 2 images on each side, not {len(features)}: use more prompts")
    for start in range(0, len(features), CHUNK):
        good = np.isfinite(features[start : start + CHUNK]).all(axis=1)
        if not good.all():
            row = start + int(good.argmin())
            raise ValueError(f"features of image {row} are not finite: check the image and the extractor's weights")
    return features


def float64_chunks(features: np.ndarray) -> Iterator[np.ndarray]:
    """Copies of successive rows in float64: sums of float32 values have errors of 1e-7."""
    for start in range(0, len(features), CHUNK):
        yield features[start : start + CHUNK].astype(np.float64)


def cov_factor(stats: Stats) -> np.ndarray:
    """F (rank, dim) with FᵀF = cov: the Cholesky factor if it exists, else scaled eigenvectors, n − 1 at most."""
    if stats.n > len(stats.cov):
        try:
            return np.linalg.cholesky(stats.cov).T
        except np.linalg.LinAlgError:  # constant or dependent features: positive semi-definite only
            pass
    values, vectors = np.linalg.eigh(stats.cov)
    rank = min(stats.n - 1, len(values))
    # Eigenvalues beyond the rank are rounding noise, but their square roots would not be negligible.
    values, vectors = values[-rank:], vectors[:, -rank:]
    return np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T


def nuclear_norm(matrix: np.ndarray) -> float:
    """Sum of the singular values."""
    return float(np.linalg.svd(matrix, compute_uv=False).sum())


def _feature_factor(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (dim,), and F with FᵀF = cov: the scaled centred features (n, dim) if n <= dim, else (dim, dim)."""
    n, dim = features.shape
    if n > dim:
        stats = features_to_stats(features)
        return stats.mean, cov_factor(stats)
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    return mean, (features - mean) / np.sqrt(n - 1)


def _cross_trace(factor: np.ndarray, cov: np.ndarray) -> float:
    """tr (FᵀF · cov)^½ from the eigenvalues of the symmetric F cov Fᵀ."""
    values = np.linalg.eigvalsh(factor @ cov @ factor.T)
    return float(np.sqrt(np.clip(values, 0, None)).sum())


def _distance(mean_difference: np.ndarray, traces: float, cross: float) -> float:
    return float(mean_difference @ mean_difference) + traces - 2 * cross


def check_dimensions(x: int, y: int) -> None:
    """ValueError unless both sides have features of as many dimensions."""
    if x != y:
        raise ValueError(f"features have {x} and {y} dimensions: extract both sides with the same extractor")
