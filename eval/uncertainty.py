"""Standard errors of FID and KID: how much a score would vary with other prompts.

Delete-a-group jackknife over prompts (Shao & Wu 1989; unequal groups as in Busing, Meijer & van der Leeden 1999): the
score is recomputed without one group of generated images at a time. The bootstrap is unsuitable: resampling with
replacement repeats images, which lowers the rank of the covariance and inflates FID. The jackknife also cancels a bias
of the form c / n, which FID has. A reference of real images is taken as fixed: the error is that of the generated
images. Base samples belong to the same prompts, so a group is left out on both sides (``paired=True``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions

from eval.fid import FixedReference, Stats, features_to_fid, features_to_stats, stats_to_fid, stats_without
from eval.kid import PairedSums, checked_sides, draw_subsets, group_pairs, kernel_sums, paired_group_pairs

GROUPS = 20
MINIMUM_IMAGES = 3  # leaving one out must leave two
MAXIMUM_ROWS = 32_768  # of a side whose pairs are all computed for KID: the 30,000 images of the literature


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


def prompts_key(ids: Sequence[str], groups: Sequence[np.ndarray]) -> str:
    """Identity of the images' prompts, their order and their grouping: 16 hex digits of a SHA-256."""
    content = json.dumps([list(ids), [group.tolist() for group in groups]])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Estimate:
    """A score with its uncertainty over prompts.

    Args:
        value: the score of all images.
        without: the score without each group of prompts.
        group_sizes: number of images in each group.
        key: identity of the prompts and their grouping, see `prompts_key`.
    """

    value: float
    without: tuple[float, ...]
    group_sizes: tuple[int, ...]
    key: str = ""

    @property
    def prompts(self) -> tuple[str, tuple[int, ...]]:
        """What two scores have in common whose difference is paired: their prompts and how these are grouped."""
        return self.key, self.group_sizes

    @property
    def se(self) -> float:
        """Standard error over prompts."""
        return jackknife_se(self.value, self.without, self.group_sizes)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the score at this number of images (the bias of FID remains)."""
        return interval_of(self.value, self.se, len(self.group_sizes), level=level)

    def minus(self, other: Estimate) -> tuple[float, float]:
        """Difference of two methods' scores on the same prompts, and its standard error.

        Prompts that are hard for both methods shift both scores, so this error is usually far below that of a score.

        Raises:
            ValueError: the prompts or their groups differ.
        """
        if self.prompts != other.prompts:
            raise ValueError("a paired difference needs scores of the same prompts in the same order: these differ")
        value = self.value - other.value
        without = [a - b for a, b in zip(self.without, other.without, strict=True)]
        return value, jackknife_se(value, without, self.group_sizes)


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """The mean score of several methods on the same prompts; ValueError if their prompts or groups differ."""
    first = estimates[0]
    if any(each.prompts != first.prompts for each in estimates):
        raise ValueError("a mean over methods needs scores of the same prompts in the same order: these differ")
    without = np.mean([each.without for each in estimates], axis=0)
    value = float(np.mean([each.value for each in estimates]))
    return Estimate(value, tuple(map(float, without)), first.group_sizes, first.key)


def jackknife_se(score: float, without_group: Sequence[float], group_sizes: Sequence[int]) -> float:
    """Standard error of ``score`` from the scores without each group, whose sizes sum to the number of images."""
    left = np.asarray(without_group, dtype=np.float64)
    h = sum(group_sizes) / np.asarray(group_sizes, dtype=np.float64)
    estimate = len(left) * score - float(((1 - 1 / h) * left).sum())
    pseudo = h * score - (h - 1) * left
    return float(np.sqrt((np.square(pseudo - estimate) / (h - 1)).mean()))


def interval_of(value: float, se: float, groups: int, *, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a score or difference whose ``se`` comes from a jackknife over ``groups`` groups.

    Student's t with groups − 1 degrees of freedom: with 20 groups 2.09 standard errors instead of 1.96.
    """
    half = float(distributions.t.ppf((1 + level) / 2, groups - 1)) * se
    return value - half, value + half


def estimate_fid(
    x: np.ndarray,
    y: np.ndarray | Stats,
    *,
    groups: Sequence[np.ndarray] | None = None,
    ids: Sequence[str] | None = None,
    paired: bool = False,
) -> Estimate:
    """FID with its uncertainty over the prompts of x.

    Args:
        x: (n, dim) features of generated images.
        y: (m, dim) features of the reference, or their moments if the sides are not paired.
        groups: indices of x to leave out together; `prompt_groups` if not given.
        ids: (n,) one for each row of x, the same for two methods on the same prompts; 0 … n−1 if not given.
        paired: x_i and y_i belong to the same prompt, so a group is left out on both sides; requires n = m.
    """
    if not isinstance(y, Stats):
        x, y = checked_sides(x, y, paired=paired)
    groups = prompt_groups(len(x)) if groups is None else groups
    full_rank = len(x) - max(len(group) for group in groups) > x.shape[1]
    if paired and not isinstance(y, Stats):
        whole = features_to_fid(x, y)
        if full_rank:
            a, b = features_to_stats(x), features_to_stats(y)
            without = [stats_to_fid(stats_without(a, x[rows]), stats_without(b, y[rows])) for rows in groups]
        else:
            without = [features_to_fid(np.delete(x, rows, axis=0), np.delete(y, rows, axis=0)) for rows in groups]
        return _estimate(whole, without, groups, ids)
    reference = FixedReference(y)
    if reference.full_rank and full_rank:
        stats = features_to_stats(x)
        without = [reference.fid_of_stats(stats_without(stats, x[group])) for group in groups]
    else:
        without = [reference.fid(np.delete(x, group, axis=0)) for group in groups]
    return _estimate(reference.fid(x), without, groups, ids)


def estimate_kid(
    x: np.ndarray,
    y: np.ndarray,
    *,
    groups: Sequence[np.ndarray] | None = None,
    ids: Sequence[str] | None = None,
    paired: bool = False,
    all_pairs: bool = False,
) -> Estimate:
    """KID with its uncertainty over the prompts of x; arguments as in `estimate_fid`.

    If a side has more than ``MAXIMUM_ROWS``, the score is the mean over `draw_subsets`, and its error that of this
    mean, unless ``all_pairs``.
    """
    x, y = checked_sides(x, y, paired=paired)
    groups = prompt_groups(len(x)) if groups is None else groups
    if all_pairs or not is_capped(len(x), len(y)):
        value, without = _kid_with_and_without(x, y, groups, paired)
        return _estimate(value, without, groups, ids)
    group_of = np.empty(len(x), dtype=int)
    for index, group in enumerate(groups):
        group_of[group] = index
    values, partly = [], []
    for rows, others in draw_subsets(len(x), len(y), paired=paired):
        drawn = [np.flatnonzero(group_of[rows] == index) for index in range(len(groups))]
        value, without = _kid_with_and_without(x[rows], y[others], drawn, paired)
        values.append(value)
        partly.append(without)
    return _estimate(float(np.mean(values)), np.mean(partly, axis=0).tolist(), groups, ids)


def is_capped(n: int, m: int) -> bool:
    """Whether `estimate_kid` draws subsets of n and m rows."""
    return max(n, m) > MAXIMUM_ROWS


def _kid_with_and_without(
    x: np.ndarray, y: np.ndarray, groups: Sequence[np.ndarray], paired: bool
) -> tuple[float, list[float]]:
    """KID over all pairs, and without each group of rows."""
    sums = kernel_sums(x, y, paired=paired)
    pairs = paired_group_pairs(x, y, groups) if isinstance(sums, PairedSums) else group_pairs(x, groups)
    return sums.kid(), [sums.kid_without(group, own) for group, own in zip(groups, pairs, strict=True)]


def estimate_all(
    score: Callable[[np.ndarray], Mapping[str, float]],
    n: int,
    *,
    groups: Sequence[np.ndarray] | None = None,
    ids: Sequence[str] | None = None,
) -> dict[str, Estimate]:
    """Any scores of n images with their uncertainty.

    Args:
        score: maps the sorted indices of the images to score (all, or all without a group) to named scores. It must
            not depend on random numbers that change between these calls.
        n: number of images.
        groups: indices to leave out together; `prompt_groups` if not given.
        ids: one for each image, as in `estimate_fid`.
    """
    groups = prompt_groups(n) if groups is None else groups
    rows = np.arange(n)
    whole, without = score(rows), [score(np.delete(rows, group)) for group in groups]
    return {name: _estimate(value, [left[name] for left in without], groups, ids) for name, value in whole.items()}


def estimate_mean(
    values: np.ndarray, *, groups: Sequence[np.ndarray] | None = None, ids: Sequence[str] | None = None
) -> Estimate:
    """Mean of (n,) values, one for each prompt, with its uncertainty; ``groups`` and ``ids`` as in `estimate_fid`."""
    groups = prompt_groups(len(values)) if groups is None else groups
    without = [float(np.delete(values, group).mean()) for group in groups]
    return _estimate(float(values.mean()), without, groups, ids)


def _estimate(
    value: float, without: Sequence[float], groups: Sequence[np.ndarray], ids: Sequence[str] | None
) -> Estimate:
    sizes = tuple(len(group) for group in groups)
    n = sum(sizes)
    if ids is not None and len(ids) != n:
        raise ValueError(f"{len(ids)} ids for {n} images: give one for each image")
    names = [str(i) for i in range(n)] if ids is None else ids
    return Estimate(value, tuple(without), sizes, prompts_key(names, groups))
