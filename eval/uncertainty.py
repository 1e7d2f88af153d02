"""Standard errors of FID and KID: how much a score would vary with other prompts.

Delete-a-group jackknife over prompts (Shao & Wu 1989; unequal groups as in Busing, Meijer & van der Leeden 1999): the
score is recomputed without one group of generated images at a time. The bootstrap is unsuitable: resampling with
replacement repeats images, which lowers the rank of the covariance and inflates FID. The jackknife also cancels a bias
of the form c / n, which FID has. The reference set is taken as fixed: the error is that of the generated images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.frechet import FixedReference, Stats, checked_features, features_to_stats
from eval.kid import group_pairs, kernel_sums

GROUPS = 20
MINIMUM_IMAGES = 3  # leaving one out must leave two


def prompt_groups(n: int, *, count: int = GROUPS, seed: int = 0) -> list[np.ndarray]:
    """Randomly split indices 0 … n−1 into ``count`` groups (n if there are fewer), the same way for the same seed.

    Raises:
        ValueError: fewer than two groups, or fewer than two images without a group.
    """
    if count < 2:
        raise ValueError(f"a jackknife needs at least 2 groups, not {count}")
    groups = np.array_split(np.random.default_rng(seed).permutation(n), min(n, count)) if n else []
    if not groups or n - len(groups[0]) < 2:
        raise ValueError(f"a standard error needs at least {MINIMUM_IMAGES} images, not {n}: use more prompts")
    return [np.sort(group) for group in groups]


@dataclass(frozen=True)
class Estimate:
    """A score, its values without each group of prompts, and the sizes of the groups."""

    value: float
    without: tuple[float, ...]
    group_sizes: tuple[int, ...]

    @property
    def se(self) -> float:
        """Standard error over prompts."""
        return jackknife_se(self.value, self.without, self.group_sizes)

    def minus(self, other: Estimate) -> tuple[float, float]:
        """Difference of two methods' scores on the same prompts, and its standard error.

        Prompts that are hard for both methods shift both scores, so this error is usually far below that of a score.

        Raises:
            ValueError: the groups differ, so these are not scores of the same prompts.
        """
        if self.group_sizes != other.group_sizes:
            raise ValueError("a paired difference needs scores of the same prompts: their groups differ")
        value = self.value - other.value
        without = [a - b for a, b in zip(self.without, other.without, strict=True)]
        return value, jackknife_se(value, without, self.group_sizes)


def jackknife_se(score: float, without_group: Sequence[float], group_sizes: Sequence[int]) -> float:
    """Standard error of ``score`` from the scores without each group, whose sizes sum to the number of images."""
    left = np.asarray(without_group, dtype=np.float64)
    h = sum(group_sizes) / np.asarray(group_sizes, dtype=np.float64)
    estimate = len(left) * score - float(((1 - 1 / h) * left).sum())
    pseudo = h * score - (h - 1) * left
    return float(np.sqrt((np.square(pseudo - estimate) / (h - 1)).mean()))


def estimate_fid(x: np.ndarray, y: np.ndarray, *, groups: Sequence[np.ndarray] | None = None) -> Estimate:
    """FID of generated features x (n, dim) against y (m, dim), with its uncertainty over the prompts of x."""
    x = checked_features(x)
    reference = FixedReference(y)
    groups = prompt_groups(len(x)) if groups is None else groups
    smallest = len(x) - max(len(group) for group in groups)
    if reference.full_rank and smallest > x.shape[1]:
        stats = features_to_stats(x)
        without = [reference.fid_of_stats(_stats_without(stats, x[group])) for group in groups]
    else:
        without = [reference.fid(np.delete(x, group, axis=0)) for group in groups]
    return Estimate(reference.fid(x), tuple(without), tuple(len(group) for group in groups))


def estimate_kid(x: np.ndarray, y: np.ndarray, *, groups: Sequence[np.ndarray] | None = None) -> Estimate:
    """KID of generated features x (n, dim) against y (m, dim), with its uncertainty over the prompts of x."""
    sums = kernel_sums(x, y)
    groups = prompt_groups(len(x)) if groups is None else groups
    pairs = group_pairs(x, groups)
    without = [sums.kid_without(group, own) for group, own in zip(groups, pairs, strict=True)]
    return Estimate(sums.kid(), tuple(without), tuple(len(group) for group in groups))


def estimate_all(
    score: Callable[[np.ndarray], Mapping[str, float]], x: np.ndarray, *, groups: Sequence[np.ndarray] | None = None
) -> dict[str, Estimate]:
    """Any scores of features x (n, dim) with their uncertainty; ``score`` is called again without each group."""
    groups = prompt_groups(len(x)) if groups is None else groups
    whole, without = score(x), [score(np.delete(x, group, axis=0)) for group in groups]
    sizes = tuple(len(group) for group in groups)
    return {name: Estimate(value, tuple(left[name] for left in without), sizes) for name, value in whole.items()}


def estimate_mean(values: np.ndarray, *, groups: Sequence[np.ndarray] | None = None) -> Estimate:
    """Mean of (n,) values, one per prompt, with its uncertainty."""
    groups = prompt_groups(len(values)) if groups is None else groups
    without = tuple(float(np.delete(values, group).mean()) for group in groups)
    return Estimate(float(values.mean()), without, tuple(len(group) for group in groups))


def _stats_without(stats: Stats, dropped: np.ndarray) -> Stats:
    """Moments without the rows ``dropped`` (k, dim), by a downdate instead of a pass over all features."""
    k, n = len(dropped), stats.n
    shift = dropped - stats.mean
    total = shift.sum(axis=0)
    mean = stats.mean - total / (n - k)
    scatter = (n - 1) * stats.cov - shift.T @ shift - np.outer(total, total) / (n - k)
    return Stats(mean, scatter / (n - k - 1), n - k)
