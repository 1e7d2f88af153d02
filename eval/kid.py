"""Kernel Inception distance (Bińkowski et al. 2018, arXiv 1801.01401): unbiased MMD² with k(x, y) = (x·y / dim + 1)³.

The full-set U-statistic: every pair once, no random subsets, sizes may differ. It is unbiased and not clipped, so it
may be slightly negative. Kernel values are summed in blocks, so memory is that of the features.

If x_i and y_i show the same prompt they are dependent, and k(x_i, y_i) would bias the estimate downwards. With
``paired=True`` all sums therefore leave out i = j (the U-statistic of Gretton et al. 2012, JMLR 13, equation 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.fid import checked_features

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


@dataclass(frozen=True)
class PairedSums:
    """Sums that give the distance of paired sides with or without some of the pairs.

    Args:
        rows: (n,) for each i, k(x_i, x_j) + k(y_i, y_j) − k(x_i, y_j) − k(y_i, x_j) summed over all j ≠ i.
    """

    rows: np.ndarray

    def kid(self) -> float:
        """The distance with all pairs."""
        n = len(self.rows)
        return float(self.rows.sum()) / (n * (n - 1))

    def kid_without(self, group: np.ndarray, pairs: float) -> float:
        """The distance without ``group`` (indices) on both sides; ``pairs``: the terms within the group."""
        n = len(self.rows) - len(group)
        return (float(self.rows.sum() - 2 * self.rows[group].sum()) + pairs) / (n * (n - 1))


def features_to_kid(x: np.ndarray, y: np.ndarray, *, paired: bool = False, chunk: int = CHUNK) -> float:
    """Unbiased KID between features (n, dim) and (m, dim), in float64.

    Args:
        x: (n, dim) features.
        y: (m, dim) features.
        paired: x_i and y_i depend on each other, as images of the same prompt do; requires n = m.
        chunk: rows of the kernel matrix that are computed at a time.

    Raises:
        ValueError: fewer than two images on a side, values that are not finite, different dimensions, or paired sides
            of different length.
    """
    return kernel_sums(x, y, paired=paired, chunk=chunk).kid()


def kernel_sums(x: np.ndarray, y: np.ndarray, *, paired: bool = False, chunk: int = CHUNK) -> KernelSums | PairedSums:
    """All kernel sums between features (n, dim) and (m, dim); arguments and errors as in `features_to_kid`."""
    x, y = checked_sides(x, y, paired=paired)
    if paired:
        return PairedSums(_paired_rows(x, y, chunk))
    reference = float(_row_sums(y, y, chunk).sum() - _diagonal(y, y).sum())
    return KernelSums(_row_sums(x, x, chunk) - _diagonal(x, x), _row_sums(x, y, chunk), reference, len(y))


def group_pairs(x: np.ndarray, groups: Sequence[np.ndarray]) -> list[float]:
    """For each group of rows of x (n, dim): the kernel summed over its ordered pairs of different rows."""
    x = checked_features(x)
    return [float(_kernel(x[group], x[group]).sum() - _diagonal(x[group], x[group]).sum()) for group in groups]


def paired_group_pairs(x: np.ndarray, y: np.ndarray, groups: Sequence[np.ndarray]) -> list[float]:
    """For each group of rows of x and y (n, dim): the terms of `PairedSums` summed over its ordered pairs."""
    x, y = checked_sides(x, y, paired=True)
    return [float(_paired_rows(x[group], y[group], CHUNK).sum()) for group in groups]


def checked_sides(x: np.ndarray, y: np.ndarray, *, paired: bool) -> tuple[np.ndarray, np.ndarray]:
    """Both sides as float64; ValueError as in `features_to_kid`."""
    x, y = checked_features(x), checked_features(y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"features have {x.shape[1]} and {y.shape[1]} dimensions: extract both sides with the same extractor"
        )
    if paired and len(x) != len(y):
        raise ValueError(f"paired sides need one image for each prompt, not {len(x)} and {len(y)} images")
    return x, y


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _diagonal(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((x * y).sum(axis=1) / x.shape[1] + 1) ** 3


def _row_sums(x: np.ndarray, y: np.ndarray, chunk: int) -> np.ndarray:
    """(n,) for each row of x, its kernel summed over all rows of y."""
    sums = np.zeros(len(x))
    for i in range(0, len(x), chunk):
        for j in range(0, len(y), chunk):
            sums[i : i + chunk] += _kernel(x[i : i + chunk], y[j : j + chunk]).sum(axis=1)
    return sums


def _paired_rows(x: np.ndarray, y: np.ndarray, chunk: int) -> np.ndarray:
    """(n,) ``rows`` of `PairedSums`."""
    if np.array_equal(x, y):  # exactly zero, which BLAS would not give: x @ x.T and x @ y.T are rounded differently
        return np.zeros(len(x))
    same = _row_sums(x, x, chunk) - _diagonal(x, x) + _row_sums(y, y, chunk) - _diagonal(y, y)
    return same - (_row_sums(x, y, chunk) + _row_sums(y, x, chunk) - 2 * _diagonal(x, y))
