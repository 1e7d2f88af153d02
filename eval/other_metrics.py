"""Metrics reported beside FID and KID, computed from the same features.

torch-fidelity's implementations are used where it has one, without its downloads, caches and defaults.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from eval.frechet import checked_features, features_to_fid

SUBSETS, SUBSET_SIZE = 100, 1000  # as KID is usually reported
EXTRAPOLATION_POINTS = 15
INCEPTION_SPLITS = 10
NEIGHBOURS = 3  # of precision and recall


def kid_of_subsets(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of KID over 100 random subsets of 1000 images (of all images if there are fewer).

    This is how papers report KID. The standard deviation over subsets is not a standard error of the mean.

    Args:
        x: (n, dim) features of generated images.
        y: (m, dim) features of reference images.
    """
    from torch_fidelity.metric_kid import kid_features_to_metric

    size = min(SUBSET_SIZE, len(x), len(y))
    found = kid_features_to_metric(*tensors(x, y), kid_subsets=SUBSETS, kid_subset_size=size, verbose=False)
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]


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


def inception_score(logits: np.ndarray, splits: int = INCEPTION_SPLITS) -> tuple[float, float]:
    """Mean and standard deviation over splits of the Inception score (Salimans et al. 2016, arXiv 1606.03498).

    Args:
        logits: (n, classes) of the Inception network.

    Raises:
        ValueError: fewer images than splits.
    """
    from torch_fidelity.metric_isc import isc_features_to_metric

    if len(logits) < splits:
        raise ValueError(f"the Inception score needs at least {splits} images, not {len(logits)}")
    found = isc_features_to_metric(torch.from_numpy(np.asarray(logits)), splits=splits)
    return found["inception_score_mean"], found["inception_score_std"]


def clip_scores(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """(n,) CLIPScore, 100 max(cos, 0), of image and text features (n, dim) (Hessel et al. 2021, arXiv 2104.08718)."""
    images, texts = checked_features(images), checked_features(texts)
    lengths = np.linalg.norm(images, axis=1) * np.linalg.norm(texts, axis=1)
    return 100 * np.clip((images * texts).sum(axis=1) / lengths, 0, None)


def fid_at_infinity(x: np.ndarray, y: np.ndarray, *, seed: int = 0) -> float:
    """FID extrapolated to infinitely many images on both sides (Chong & Forsyth 2020, arXiv 1911.07023).

    The bias of FID is about c / n. A line is fitted to the scores of random subsets, from a half to all images of both
    sides, as a function of 1 / share; its intercept estimates the unbiased score.

    Args:
        x: (n, dim) features of generated images.
        y: (m, dim) features of reference images.
        seed: of the random subsets.

    Raises:
        ValueError: fewer than 2 * dim images on a side, where the bias is not linear in 1 / n.
    """
    x, y = checked_features(x), checked_features(y)
    dim, smaller = x.shape[1], min(len(x), len(y))
    if smaller < 2 * dim:
        raise ValueError(f"FID at infinite n needs {2 * dim} images on each side with {dim} dimensions, not {smaller}")
    rng = np.random.default_rng(seed)
    shares = np.linspace(0.5, 1, EXTRAPOLATION_POINTS)
    scores = [features_to_fid(subset(x, share, rng), subset(y, share, rng)) for share in shares]
    _, intercept = np.polyfit(1 / shares, scores, 1)
    return float(intercept)


def subset(features: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A random share of the rows."""
    return features[rng.permutation(len(features))[: round(share * len(features))]]


def tensors(*arrays: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Checked float64 features as tensors."""
    return tuple(torch.from_numpy(checked_features(array)) for array in arrays)
