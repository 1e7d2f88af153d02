"""Kernel Inception distance (Bińkowski et al. 2018, arXiv 1801.01401): unbiased MMD² with k(x, y) = (x·y / dim + 1)³.

The full-set U-statistic: every pair once, no random subsets, sizes may differ. It is unbiased and not clipped, so it
may be slightly negative. Kernel values are summed in blocks, so memory is that of the features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.frechet import checked_features

CHUNK = 1024


@dataclass(frozen=True)
class KernelSums:
    """Sums of kernel values that give the distance with or without some of the x.

    Args:
        within: (n,) for each x_i, over all other x_j.
        across: (n,) for each x_i, over all y_j.
        reference: over ordered pairs of different y.
        m: number of y.
    """

    within: np.ndarray
    across: np.ndarray
    reference: float
    m: int

    def kid(self) -> float:
        """The distance with all x."""
        return self._kid(float(self.within.sum()), float(self.across.sum()), len(self.within))

    def kid_without(self, group: np.ndarray, pairs: float) -> float:
        """The distance without the x of ``group`` (indices); ``pairs``: the kernel summed over its ordered pairs."""
        within = float(self.within.sum() - 2 * self.within[group].sum()) + pairs
        across = float(self.across.sum() - self.across[group].sum())
        return self._kid(within, across, len(self.within) - len(group))

    def _kid(self, within: float, across: float, n: int) -> float:
        m = self.m
        return within / (n * (n - 1)) + self.reference / (m * (m - 1)) - 2 * across / (n * m)


def features_to_kid(x: np.ndarray, y: np.ndarray, *, chunk: int = CHUNK) -> float:
    """Unbiased KID between features (n, dim) and (m, dim), in float64; ``chunk`` rows of the kernel at a time.

    Raises:
        ValueError: fewer than two images on a side, values that are not finite, or different dimensions.
    """
    return kernel_sums(x, y, chunk=chunk).kid()


def kernel_sums(x: np.ndarray, y: np.ndarray, *, chunk: int = CHUNK) -> KernelSums:
    """All kernel sums between features (n, dim) and (m, dim)."""
    x, y = checked_features(x), checked_features(y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"features have {x.shape[1]} and {y.shape[1]} dimensions: extract both sides with the same extractor"
        )
    reference = float(_row_sums(y, y, chunk).sum() - _diagonal(y).sum())
    return KernelSums(_row_sums(x, x, chunk) - _diagonal(x), _row_sums(x, y, chunk), reference, len(y))


def group_pairs(x: np.ndarray, groups: Sequence[np.ndarray]) -> list[float]:
    """For each group of rows of x (n, dim): the kernel summed over its ordered pairs of different rows."""
    x = checked_features(x)
    return [float(_kernel(x[group], x[group]).sum() - _diagonal(x[group]).sum()) for group in groups]


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _diagonal(x: np.ndarray) -> np.ndarray:
    return (np.square(x).sum(axis=1) / x.shape[1] + 1) ** 3


def _row_sums(x: np.ndarray, y: np.ndarray, chunk: int) -> np.ndarray:
    """(n,) for each row of x, its kernel summed over all rows of y."""
    sums = np.zeros(len(x))
    for i in range(0, len(x), chunk):
        for j in range(0, len(y), chunk):
            sums[i : i + chunk] += _kernel(x[i : i + chunk], y[j : j + chunk]).sum(axis=1)
    return sums
