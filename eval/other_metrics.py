"""Metrics reported beside FID and KID, computed from the same features.

torch-fidelity's implementations are used where it has one, without its downloads, caches and defaults.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from eval.fid import checked_features, features_to_fid
from eval.kid import SUBSET_SIZE, SUBSETS, features_to_kid

EXTRAPOLATION_POINTS = 15
INCEPTION_SPLITS = 10
SEED = 2020  # of torch-fidelity, for splits and subsets
NEIGHBOURS = 3  # of precision and recall


def kid_of_subsets(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of KID over 100 random subsets of 1000 images, those that torch-fidelity draws.

    This is how papers report KID. The standard deviation over subsets is not a standard error of the mean.

    Args:
        x: (n, dim) features of generated images.
        y: (m, dim) features of reference images.

    Raises:
        ValueError: fewer than 1000 images on a side, so that all subsets would be the same.
    """
    if min(len(x), len(y)) < SUBSET_SIZE:
        raise ValueError(
            f"kid_subsets needs {SUBSET_SIZE} images on each side, not {len(x)}, {len(y)}: kid uses all pairs instead"
        )
    rng, found = np.random.RandomState(SEED), []
    for _ in range(SUBSETS):
        rows, others = (rng.choice(len(side), SUBSET_SIZE, replace=False) for side in (x, y))
        found.append(features_to_kid(x[rows], y[others]))
    return float(np.mean(found)), float(np.std(found))


def precision_recall(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991) with k = 3 neighbours.

    Args:
        x: (n, dim) features of generated images; precision is the share of them in the manifold of y.
        y: (m, dim) features of real images; recall is the share of them in the manifold of x.

    Raises:
        ValueError: fewer than five images on a side.
    """
    from torch_fidelity.metric_prc import prc_features_to_metric

    if min(len(x), len(y)) < NEIGHBOURS + 2:
        raise ValueError(f"precision and recall need {NEIGHBOURS + 2} images on each side, not {len(x)}, {len(y)}")
    found: Mapping[str, float] = prc_features_to_metric(
        *tensors(x, y), prc_neighborhood=NEIGHBOURS, save_cpu_ram=True, prc_batch_size=1000, verbose=False
    )
    return {"precision": found["precision"], "recall": found["recall"]}


def inception_score(
    logits: np.ndarray, rows: np.ndarray | None = None, *, splits: int = INCEPTION_SPLITS
) -> tuple[float, float]:
    """Mean and standard deviation over splits of the Inception score (Salimans et al. 2016, arXiv 1606.03498).

    The split of an image depends on its index among all n images only, so scores with and without some images are
    comparable. With all images the splits are those of torch-fidelity.

    Args:
        logits: (n, classes) of the Inception network.
        rows: indices of the images to score; all if not given.
        splits: number of splits.

    Raises:
        ValueError: fewer images than splits.
    """
    from torch_fidelity.metric_isc import isc_features_to_metric

    n = len(logits)
    if n < splits:
        raise ValueError(f"the Inception score needs at least {splits} images, not {n}")
    chosen = np.ones(n, dtype=bool) if rows is None else np.isin(np.arange(n), rows)
    order = np.random.RandomState(SEED).permutation(n)
    parts = [order[i * n // splits : (i + 1) * n // splits] for i in range(splits)]
    kept = [torch.from_numpy(np.asarray(logits)[part[chosen[part]]]) for part in parts if chosen[part].any()]
    scores = [isc_features_to_metric(part, splits=1, shuffle=False)["inception_score_mean"] for part in kept]
    return float(np.mean(scores)), float(np.std(scores))


def clip_scores(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """CLIPScore of each image, 100 max(cos, 0) (Hessel et al. 2021, arXiv 2104.08718).

    Args:
        images: (n, dim) CLIP features of images.
        texts: (n, dim) CLIP features of their prompts.

    Returns:
        (n,) float64, 0 to 100.
    """
    images, texts = (checked_features(side).astype(np.float64) for side in (images, texts))
    lengths = np.linalg.norm(images, axis=1) * np.linalg.norm(texts, axis=1)
    return 100 * np.clip((images * texts).sum(axis=1) / lengths, 0, None)


def fid_at_infinity(x: np.ndarray, y: np.ndarray, rows: np.ndarray | None = None, *, seed: int = 0) -> float:
    """FID extrapolated to infinitely many images on both sides (Chong & Forsyth 2020, arXiv 1911.07023).

    The bias of FID is about c / n. A line is fitted to the scores of random subsets, from a half to all images of both
    sides, as a function of 1 / share; its intercept estimates the unbiased score.

    The subsets follow from a random rank of each image that depends on its index and ``seed`` only, so scores with and
    without some images are comparable. Their jackknife error is up to 1.4 times too large where the two distributions
    are nearly the same: the distance is then quadratic in the data (Efron & Stein 1981).

    Args:
        x: (n, dim) features of generated images.
        y: (m, dim) features of reference images.
        rows: indices of the generated images to score; all if not given.
        seed: of the random subsets.

    Raises:
        ValueError: fewer than 4 * dim images on a side: the smallest subset needs 2 * dim, because the bias is not
            linear in 1 / n below that.
    """
    x, y = checked_features(x), checked_features(y)
    dim, smaller = x.shape[1], min(len(x), len(y))
    if smaller < 4 * dim:
        raise ValueError(f"FID at infinite n needs {4 * dim} images on each side with {dim} dimensions, not {smaller}")
    rng = np.random.default_rng(seed)
    chosen = np.ones(len(x), dtype=bool) if rows is None else np.isin(np.arange(len(x)), rows)
    shares = np.linspace(0.5, 1, EXTRAPOLATION_POINTS)
    scores = []
    for share in shares:
        order, other = rng.permutation(len(x)), rng.permutation(len(y))
        scores.append(features_to_fid(first(x[order[chosen[order]]], share), first(y[other], share)))
    _, intercept = np.polyfit(1 / shares, scores, 1)
    return float(intercept)


def first(features: np.ndarray, share: float) -> np.ndarray:
    """The first share of the rows."""
    return features[: round(share * len(features))]


def tensors(*arrays: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Checked float64 features as tensors."""
    return tuple(torch.from_numpy(checked_features(array).astype(np.float64)) for array in arrays)
