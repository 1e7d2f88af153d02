"""Scores of a set of generated images against a reference set, in the form of metrics.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np

from eval.crops import WHOLE, Cropping
from eval.extractors import Inception, ViT
from eval.features import FeatureExtractor
from eval.frechet import checked_features
from eval.other_metrics import (
    INCEPTION_SPLITS,
    clip_scores,
    fid_at_infinity,
    inception_score,
    kid_of_subsets,
    precision_recall,
)
from eval.uncertainty import (
    MINIMUM_IMAGES,
    Estimate,
    estimate_all,
    estimate_fid,
    estimate_kid,
    estimate_mean,
    prompt_groups,
)

# Metrics that can be requested beside FID and KID. These are functions of generated and reference features, ...
COMPARED: dict[str, Callable[[np.ndarray, np.ndarray], Mapping[str, float]]] = {
    "precision_recall": precision_recall,
    "fid_infinity": lambda x, y: {"fid_infinity": fid_at_infinity(x, y)},
}
KID_SUBSETS = "kid_subsets"  # ... this one has a standard deviation instead of a standard error, ...
INCEPTION_SCORE, CLIP_SCORE = "inception_score", "clip_score"  # ... and these need no reference.
ALSO = (*COMPARED, KID_SUBSETS, INCEPTION_SCORE, CLIP_SCORE)


def check_names(also: Sequence[str]) -> None:
    """ValueError for a metric that is not in ``ALSO``."""
    for name in also:
        if name not in ALSO:
            raise ValueError(f"unknown metric {name!r}: choose from {', '.join(ALSO)}")


def score_features(
    generated: np.ndarray,
    reference: np.ndarray,
    suffix: Literal["r", "b"],
    *,
    cropping: Cropping = WHOLE,
    also: Sequence[str] = (),
) -> dict[str, Any]:
    """FID and KID with standard errors.

    Args:
        generated: (n * cropping.count, dim) features, the crops of an image adjacent, one image per prompt, n >= 3.
        reference: (m, dim) features of real images ("r") or of the same model's base-size images ("b"), m >= 2.
        suffix: which reference it is.
        cropping: what the rows are features of. The standard error leaves out all crops of an image together.
        also: more metrics of ``ALSO``; those that need no reference are computed by `score_alone`.

    Returns:
        fid_S, fid_S_se, kid_S and kid_S_se for suffix S (pfid_S, ... for crops), fid_S_jackknife, ... for
        `as_estimate`, and as requested precision_S, recall_S, fid_infinity_S and kid_subsets_S. The last estimates
        the same as kid_S and comes with its standard deviation over subsets, _std, instead of _se.

        FID has a bias of about c / n: do not compare scores with different n.

    Raises:
        ValueError: unknown suffix or metric, too few images, different dimensions, or values that are not finite.
    """
    if suffix not in ("r", "b"):
        raise ValueError(f"suffix must be 'r' (real images) or 'b' (base-size images), not {suffix!r}")
    check_names(also)
    images = len(generated) // cropping.count
    x, y = checked_pair(generated, reference, images)
    groups = [(group[:, None] * cropping.count + np.arange(cropping.count)).ravel() for group in prompt_groups(images)]
    estimates = {"fid": estimate_fid(x, y, groups=groups), "kid": estimate_kid(x, y, groups=groups)}
    for name, score in COMPARED.items():
        if name in also:
            estimates |= estimate_all(lambda part, score=score: score(part, y), x, groups=groups)  # type: ignore[misc]
    prefix = "" if cropping == WHOLE else "p"
    scores = as_metrics({f"{prefix}{name}_{suffix}": estimate for name, estimate in estimates.items()})
    if KID_SUBSETS in also:
        key = f"{prefix}{KID_SUBSETS}_{suffix}"
        scores[key], scores[f"{key}_std"] = kid_of_subsets(x, y)
    return scores


def checked_pair(generated: np.ndarray, reference: np.ndarray, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64; ValueError for too few images, values that are not finite, or different dimensions."""
    if images < MINIMUM_IMAGES:
        raise ValueError(f"a score needs at least {MINIMUM_IMAGES} generated images, not {images}: use more prompts")
    if len(reference) < 2:
        raise ValueError(f"a score needs at least 2 reference images, not {len(reference)}: add images")
    x, y = checked_features(generated), checked_features(reference)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"generated features have {x.shape[1]} dimensions and the reference {y.shape[1]}: "
            "extract both with the same extractor"
        )
    return x, y


def score_alone(
    features: np.ndarray, extractor: FeatureExtractor, *, cropping: Cropping, also: Sequence[str], texts: Sequence[str]
) -> dict[str, Any]:
    """Those metrics of ``also`` that need no reference.

    Args:
        features: (n, dim) features of whole images.
        extractor: what they were extracted with; `Inception` for the Inception score, CLIP's `ViT` for CLIPScore.
        cropping: must be ``WHOLE``.
        also: metrics of ``ALSO``; others are ignored.
        texts: the prompt of each image, for CLIPScore.

    Returns:
        As requested clip_score, and inception_score with its standard deviation over ten splits, inception_score_std;
        both with _se and _jackknife as in `score_features`.

    Raises:
        ValueError: crops, another extractor than the metric needs, or too few images.
    """
    check_names(also)
    for name, kind, needed in ((INCEPTION_SCORE, Inception, "inception"), (CLIP_SCORE, ViT, "clip")):
        suitable = cropping == WHOLE and isinstance(extractor, kind) and extractor.name == needed
        if name in also and not suitable:
            raise ValueError(f"{name} needs whole images and {needed} features, not {cropping} and {extractor.name}")
    found: dict[str, Any] = {}
    if INCEPTION_SCORE in also:
        if len(features) <= INCEPTION_SPLITS:
            raise ValueError(
                f"{INCEPTION_SCORE} needs more than {INCEPTION_SPLITS} images, not {len(features)}: one per split and "
                "one to leave out for the standard error"
            )
        logits = cast(Inception, extractor).logits(features)
        found = as_metrics(estimate_all(lambda part: {INCEPTION_SCORE: inception_score(part)[0]}, logits))
        found[f"{INCEPTION_SCORE}_std"] = inception_score(logits)[1]
    if CLIP_SCORE in also:
        alike = clip_scores(features, cast(ViT, extractor).embed_texts(texts))
        found |= as_metrics({CLIP_SCORE: estimate_mean(alike)})
    return found


def as_metrics(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Plain values for metrics.json: each score, its standard error (_se) and its jackknife values (_jackknife)."""
    values: dict[str, Any] = {}
    for name, estimate in estimates.items():
        values |= {name: estimate.value, f"{name}_se": estimate.se}
        values[f"{name}_jackknife"] = [list(estimate.without), list(estimate.group_sizes)]
    return values


def as_estimate(metrics: Mapping[str, Any], name: str) -> Estimate:
    """A score of metrics.json as an `Estimate`, for paired differences."""
    without, sizes = metrics[f"{name}_jackknife"]
    return Estimate(metrics[name], tuple(without), tuple(sizes))
