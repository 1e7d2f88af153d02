"""Scores of a set of generated images against a reference set, in the form of metrics.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast

import numpy as np

from eval.crops import WHOLE, Cropping
from eval.extractors import Inception, ViT
from eval.features import FeatureExtractor
from eval.fid import Stats, checked_features
from eval.kid import SUBSET_SIZE, SUBSETS
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
    is_capped,
    prompt_groups,
)

# Metrics that can be requested beside FID and KID. These are functions of the generated features, the reference
# features and the rows of the former to score, ...
COMPARED: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Mapping[str, float]]] = {
    "precision_recall": lambda x, y, rows: precision_recall(x[rows], y),
    "fid_infinity": lambda x, y, rows: {"fid_infinity": fid_at_infinity(x, y, rows)},
}
KID_ALL_PAIRS = "kid_all_pairs"  # ... this one is KID itself where that is only of subsets, ...
KID_SUBSETS = "kid_subsets"  # ... this one has a standard deviation instead of a standard error, ...
INCEPTION_SCORE, CLIP_SCORE = "inception_score", "clip_score"  # ... and these need no reference.
OF_REFERENCE = (*COMPARED, KID_ALL_PAIRS, KID_SUBSETS)
ALSO = (*OF_REFERENCE, INCEPTION_SCORE, CLIP_SCORE)


def check_names(also: Sequence[str]) -> None:
    """ValueError for a metric that is not in ``ALSO``."""
    for name in also:
        if name not in ALSO:
            raise ValueError(f"unknown metric {name!r}: choose from {', '.join(ALSO)}")


def score_features(
    generated: np.ndarray,
    reference: np.ndarray | Stats,
    suffix: Literal["r", "b"],
    *,
    ids: Sequence[str] | None = None,
    cropping: Cropping = WHOLE,
    also: Sequence[str] = (),
) -> dict[str, Any]:
    """FID and KID with standard errors.

    Args:
        generated: (n * cropping.count, dim) features, the crops of an image adjacent, one image per prompt, n >= 3.
        reference: (m, dim) features of real images ("r"), m >= 2, or their moments, which give FID alone; or those of
            the same model's base-size images ("b"), one for each generated image in the same order: a paired score.
        suffix: which reference it is.
        ids: one for each generated image, which `Estimate.minus` compares; 0 … n−1 if not given.
        cropping: what the rows are features of. A standard error leaves out all crops of an image together.
        also: more metrics of ``ALSO``; those that need no reference are computed by `score_alone`.

    Returns:
        fid_S and kid_S (pfid_S, pkid_S for crops), each with _se and with _jackknife for `as_estimate`, and those of
        ``also``: kid_all_pairs_r and kid_subsets_r estimate the same as kid_r, and the latter has a standard deviation
        over subsets, _std, instead of _se. FID has a bias of c / n: compare it at equal n only. If a side has more
        than `eval.uncertainty.MAXIMUM_ROWS`, KID is that of random subsets, which kid_r_pairs says.

    Raises:
        ValueError: unknown suffix or metric, too few images, different dimensions, values that are not finite, or with
            "b" another number of base images, crops or more metrics.
    """
    if suffix not in ("r", "b"):
        raise ValueError(f"suffix must be 'r' (real images) or 'b' (base-size images), not {suffix!r}")
    check_names(also)
    paired, images = suffix == "b", len(generated) // cropping.count
    if paired and (cropping != WHOLE or set(also) & set(OF_REFERENCE)):
        raise ValueError("base-size images are compared whole, by FID and KID only")
    require_features(reference, also)
    x, y = checked_pair(generated, reference, images)
    groups, ids = _of_crops(prompt_groups(images), ids, cropping.count)
    estimates = estimate_scores(x, y, groups, ids, also, paired=paired)
    prefix = "" if cropping == WHOLE else "p"
    scores = as_metrics({f"{prefix}{name}_{suffix}": estimate for name, estimate in estimates.items()})
    if not isinstance(y, Stats) and is_capped(len(x), len(y)):
        scores[f"{prefix}kid_{suffix}_pairs"] = f"{SUBSETS} subsets of {SUBSET_SIZE}"
    if not isinstance(y, Stats) and KID_SUBSETS in also:
        key = f"{prefix}{KID_SUBSETS}_{suffix}"
        scores[key], scores[f"{key}_std"] = kid_of_subsets(x, y)
    return scores


def estimate_scores(
    x: np.ndarray,
    y: np.ndarray | Stats,
    groups: Sequence[np.ndarray],
    ids: Sequence[str] | None,
    also: Sequence[str],
    *,
    paired: bool,
) -> dict[str, Estimate]:
    """By name, all that have a standard error; arguments as in `estimate_fid` and `score_features`."""
    found = {"fid": estimate_fid(x, y, groups=groups, ids=ids, paired=paired)}
    if isinstance(y, Stats):
        return found
    found["kid"] = estimate_kid(x, y, groups=groups, ids=ids, paired=paired)
    if KID_ALL_PAIRS in also:
        found[KID_ALL_PAIRS] = estimate_kid(x, y, groups=groups, ids=ids, all_pairs=True)
    for name in also:
        if name in COMPARED:
            found |= estimate_all(partial(COMPARED[name], x, y), len(x), groups=groups, ids=ids)
    return found


def _of_crops(
    groups: Sequence[np.ndarray], ids: Sequence[str] | None, count: int
) -> tuple[list[np.ndarray], list[str] | None]:
    """Groups and ids of images as those of their crops, ``count`` adjacent rows for each image."""
    rows = [(group[:, None] * count + np.arange(count)).ravel() for group in groups]
    return rows, None if ids is None else [name for name in ids for _ in range(count)]


def require_features(reference: np.ndarray | Stats, also: Sequence[str]) -> None:
    """ValueError if a metric of ``also`` needs the features of a reference of which only moments are known."""
    needing = [name for name in also if name in OF_REFERENCE]
    if isinstance(reference, Stats) and needing:
        raise ValueError(f"{', '.join(needing)} need the reference's features: it has only their mean and covariance")


def checked_pair(
    generated: np.ndarray, reference: np.ndarray | Stats, images: int
) -> tuple[np.ndarray, np.ndarray | Stats]:
    """Both as they are; ValueError for too few images, values that are not finite, or different dimensions."""
    if images < MINIMUM_IMAGES:
        raise ValueError(f"a score needs at least {MINIMUM_IMAGES} generated images, not {images}: use more prompts")
    if not isinstance(reference, Stats) and len(reference) < 2:
        raise ValueError(f"a score needs at least 2 reference images, not {len(reference)}: add images")
    x, y = checked_features(generated), reference if isinstance(reference, Stats) else checked_features(reference)
    dim = len(y.mean) if isinstance(y, Stats) else y.shape[1]
    if x.shape[1] != dim:
        raise ValueError(
            f"generated features have {x.shape[1]} dimensions and the reference {dim}: "
            "extract both with the same extractor"
        )
    return x, y


def score_alone(
    features: np.ndarray,
    extractor: FeatureExtractor,
    *,
    cropping: Cropping,
    also: Sequence[str],
    texts: Sequence[str],
    ids: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Those metrics of ``also`` that need no reference.

    Args:
        features: (n, dim) features of whole images.
        extractor: what they were extracted with; `Inception` for the Inception score, CLIP's `ViT` for CLIPScore.
        cropping: must be ``WHOLE``.
        also: metrics of ``ALSO``; others are ignored.
        texts: the prompt of each image, for CLIPScore.
        ids: (n,) one for each image, as in `score_features`.

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
        by_rows = estimate_all(lambda rows: {INCEPTION_SCORE: inception_score(logits, rows)[0]}, len(logits), ids=ids)
        found = as_metrics(by_rows)
        found[f"{INCEPTION_SCORE}_std"] = inception_score(logits)[1]
    if CLIP_SCORE in also:
        alike = clip_scores(features, cast(ViT, extractor).embed_texts(texts))
        found |= as_metrics({CLIP_SCORE: estimate_mean(alike, ids=ids)})
    return found


def as_metrics(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Plain values for metrics.json: each score, its standard error (_se) and its jackknife values (_jackknife)."""
    values: dict[str, Any] = {}
    for name, estimate in estimates.items():
        values |= {name: estimate.value, f"{name}_se": estimate.se}
        without, sizes = list(estimate.without), list(estimate.group_sizes)
        values[f"{name}_jackknife"] = {"without": without, "sizes": sizes, "prompts": estimate.key}
    return values


def as_estimate(metrics: Mapping[str, Any], name: str) -> Estimate:
    """A score of metrics.json as an `Estimate`, for paired differences.

    Raises:
        ValueError: the score was written by an older version, which did not store its prompts.
    """
    jackknife = metrics[f"{name}_jackknife"]
    if not isinstance(jackknife, Mapping):
        raise ValueError(f"{name} does not say which prompts it belongs to: score the run again")
    return Estimate(metrics[name], tuple(jackknife["without"]), tuple(jackknife["sizes"]), jackknife["prompts"])
