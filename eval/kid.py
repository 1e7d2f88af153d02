"""Kernel Inception distance (Bińkowski et al. 2018, arXiv 1801.01401): unbiased MMD² with k(x, y) = (x·y / dim + 1)³.

The full-set U-statistic: every pair once, no random subsets, sizes may differ. It is unbiased and not clipped, so it
may be slightly negative. Kernel values are computed and summed in float64, block by block: beyond the features, which
may be float32 in a file that is mapped into memory, it takes the memory of a few blocks.

The work grows with the square of the rows. `draw_subsets` is for sides that are too large for it, as crops are.

If x_i and y_i show the same prompt they are dependent, and k(x_i, y_i) would bias the estimate downwards. With
``paired=True`` all sums therefore leave out i = j (the U-statistic of Gretton et al. 2012, JMLR 13, equation 4).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from eval.fid import check_dimensions, checked_features

CHUNK = 1024
SUBSETS, SUBSET_SIZE = 100, 1000  # as KID is usually reported


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
    """Unbiased KID between two sets of features (Bińkowski et al. 2018, arXiv 1801.01401).

    Args:
        x: (n, dim) features.
        y: (m, dim) features.
        paired: x_i and y_i depend on each other, as images of the same prompt do; requires n = m.
        chunk: rows of the kernel matrix that are computed at a time.

    Returns:
        A float64 number, whose mean is 0 for two samples of one distribution: it may be below 0.

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
    across, _ = _cross_sums(x, y, chunk)
    return KernelSums(_own_sums(x, chunk), across, float(_own_sums(y, chunk).sum()), len(y))


def group_pairs(x: np.ndarray, groups: Sequence[np.ndarray]) -> list[float]:
    """For each group of rows of x (n, dim): the kernel summed over its ordered pairs of different rows."""
    x = checked_features(x)
    return [float(_own_sums(x[group], CHUNK).sum()) for group in groups]


def paired_group_pairs(x: np.ndarray, y: np.ndarray, groups: Sequence[np.ndarray]) -> list[float]:
    """For each group of rows of x and y (n, dim): the terms of `PairedSums` summed over its ordered pairs."""
    x, y = checked_sides(x, y, paired=True)
    return [float(_paired_rows(x[group], y[group], CHUNK).sum()) for group in groups]


def draw_subsets(n: int, m: int, *, paired: bool = False, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row indices of ``SUBSETS`` random subsets of n x and m y, each of ``SUBSET_SIZE`` rows if there are as many.

    The mean of KID over the subsets estimates the same as KID over all pairs. Rows are dealt like cards, so that none
    comes again before nearly all others have come: that keeps the mean close to that of all pairs. The same n, m and
    seed give the same subsets, so that methods compared on the same prompts share them.

    Args:
        paired: the same rows of x and y; requires n = m.
    """
    # Not [seed, 0], which is the same stream as seed: that one groups prompts, and a subset would lie within a group.
    left, right = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    for rows, others in zip(_deal(n, left), _deal(m, right), strict=True):
        yield (rows, rows) if paired else (rows, others)


def _deal(n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """``SUBSETS`` subsets of 0 … n−1, cut from one random order after the other."""
    size = min(SUBSET_SIZE, n)
    each = n // size
    for index in range(SUBSETS):
        if index % each == 0:
            order = rng.permutation(n)
        yield np.sort(order[index % each * size :][:size])


def checked_sides(x: np.ndarray, y: np.ndarray, *, paired: bool) -> tuple[np.ndarray, np.ndarray]:
    """Both sides as `checked_features` gives them; ValueError as in `features_to_kid`."""
    x, y = checked_features(x), checked_features(y)
    check_dimensions(x.shape[1], y.shape[1])
    if paired and len(x) != len(y):
        raise ValueError(f"paired sides need one image for each prompt, not {len(x)} and {len(y)} images")
    return x, y


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    base = x @ y.T
    base /= x.shape[1]
    base += 1
    return base * base * base  # a power would be computed with logarithms


def _block(x: np.ndarray, start: int, chunk: int) -> np.ndarray:
    return x[start : start + chunk].astype(np.float64)


def _own_sums(x: np.ndarray, chunk: int) -> np.ndarray:
    """(n,) for each row of x, its kernel summed over all other rows; each pair is computed once."""
    sums = np.zeros(len(x))
    for i in range(0, len(x), chunk):
        rows = _block(x, i, chunk)
        for j in range(i, len(x), chunk):
            values = _kernel(rows, rows if i == j else _block(x, j, chunk))
            if i == j:
                np.fill_diagonal(values, 0)
            else:
                sums[j : j + chunk] += values.sum(axis=0)
            sums[i : i + chunk] += values.sum(axis=1)
    return sums


def _cross_sums(x: np.ndarray, y: np.ndarray, chunk: int, *, paired: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(n,) for each row of x, its kernel summed over all rows of y, and (m,) the reverse; ``paired`` leaves out
    k(x_i, y_i).
    """
    sums, others = np.zeros(len(x)), np.zeros(len(y))
    for i in range(0, len(x), chunk):
        rows = _block(x, i, chunk)
        for j in range(0, len(y), chunk):
            values = _kernel(rows, _block(y, j, chunk))
            if paired and i == j:
                np.fill_diagonal(values, 0)
            sums[i : i + chunk] += values.sum(axis=1)
            others[j : j + chunk] += values.sum(axis=0)
    return sums, others


def _paired_rows(x: np.ndarray, y: np.ndarray, chunk: int) -> np.ndarray:
    """(n,) ``rows`` of `PairedSums`."""
    if np.array_equal(x, y):  # exactly zero, which BLAS would not give: x @ x.T and x @ y.T are rounded differently
        return np.zeros(len(x))
    sums, others = _cross_sums(x, y, chunk, paired=True)
    return _own_sums(x, chunk) + _own_sums(y, chunk) - (sums + others)
