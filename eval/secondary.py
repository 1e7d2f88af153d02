"""Scores that are reported beside FID and KID, on the same cached features. torch-fidelity computes what it computes
well; none of its downloads, caches or defaults is involved.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from eval.frechet import checked_features, features_to_fid

SUBSETS, SUBSET_SIZE = 100, 1000  # of the KID in papers
POINTS = 15  # of the extrapolation
INCEPTION_PARTS = 10
NEIGHBOURHOOD = 3  # of precision and recall


def kid_of_subsets(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of KID over 100 random subsets of 1000 (all, if there are fewer), as papers give it.
    The deviation is neither a standard error nor an interval.
    """
    from torch_fidelity.metric_kid import kid_features_to_metric

    size = min(SUBSET_SIZE, len(x), len(y))
    found = kid_features_to_metric(*tensors(x, y), kid_subsets=SUBSETS, kid_subset_size=size, verbose=False)
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]


def precision_recall(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Shares of generated features x (n, dim) near a real one and of real features y (m, dim) near a generated one
    (Kynkäänniemi et al. 2019, arXiv 1904.06991; third neighbours). ValueError with fewer than five on a side.
    """
    from torch_fidelity.metric_prc import prc_features_to_metric

    if min(len(x), len(y)) < NEIGHBOURHOOD + 2:
        raise ValueError(f"precision and recall need {NEIGHBOURHOOD + 2} images on each side, not {len(x)}, {len(y)}")
    found: Mapping[str, float] = prc_features_to_metric(
        *tensors(x, y), prc_neighborhood=NEIGHBOURHOOD, save_cpu_ram=True, prc_batch_size=1000, verbose=False
    )
    return {"precision": found["precision"], "recall": found["recall"]}


def inception_score(logits: np.ndarray, splits: int = INCEPTION_PARTS) -> tuple[float, float]:
    """Mean and deviation over ``splits`` parts of the Inception score (Salimans et al. 2016, arXiv 1606.03498), from
    (n, classes) logits. ValueError with fewer images than parts.
    """
    from torch_fidelity.metric_isc import isc_features_to_metric

    if len(logits) < splits:
        raise ValueError(f"the Inception score needs at least {splits} images, not {len(logits)}")
    found = isc_features_to_metric(torch.from_numpy(np.asarray(logits)), splits=splits)
    return found["inception_score_mean"], found["inception_score_std"]


def clip_scores(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """(n,) 100 max(cos, 0) between image and text features (n, dim) (Hessel et al. 2021, arXiv 2104.08718)."""
    images, texts = checked_features(images), checked_features(texts)
    lengths = np.linalg.norm(images, axis=1) * np.linalg.norm(texts, axis=1)
    return 100 * np.clip((images * texts).sum(axis=1) / lengths, 0, None)


def fid_at_infinity(x: np.ndarray, y: np.ndarray, *, seed: int = 0) -> float:
    """FID extrapolated to infinitely many images on both sides (Chong & Forsyth 2020, arXiv 1911.07023): its bias is
    c / n, so a line through the scores of random subsets, a half to all of both sides, against the inverse of the
    share, meets zero at the unbiased score.

    Raises:
        ValueError: fewer than twice as many images as dimensions on a side: there the bias is no line.
    """
    x, y = checked_features(x), checked_features(y)
    dim, smaller = x.shape[1], min(len(x), len(y))
    if smaller < 2 * dim:
        raise ValueError(f"FID at infinite n needs {2 * dim} images on each side with {dim} dimensions, not {smaller}")
    rng = np.random.default_rng(seed)
    shares = np.linspace(0.5, 1, POINTS)
    scores = [features_to_fid(subset(x, share, rng), subset(y, share, rng)) for share in shares]
    _, intercept = np.polyfit(1 / shares, scores, 1)
    return float(intercept)


def subset(features: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return features[rng.permutation(len(features))[: round(share * len(features))]]


def tensors(*arrays: np.ndarray) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(checked_features(array)) for array in arrays)
