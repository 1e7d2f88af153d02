"""Scores of one set of generated images against one reference set, as they go into metrics.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np

from eval.crops import WHOLE, Cut
from eval.extractors import Inception, ViT
from eval.features import FeatureExtractor
from eval.frechet import checked_features
from eval.secondary import (
    INCEPTION_PARTS,
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

# Asked for by name beside FID and KID. These are functions of generated and reference features, ...
COMPARED: dict[str, Callable[[np.ndarray, np.ndarray], Mapping[str, float]]] = {
    "precision_recall": precision_recall,
    "fid_infinity": lambda x, y: {"fid_infinity": fid_at_infinity(x, y)},
}
KID_SUBSETS = "kid_subsets"  # ... this has a deviation instead of an error, ...
INCEPTION_SCORE, CLIP_SCORE = "inception_score", "clip_score"  # ... and these need no reference.
ALSO = (*COMPARED, KID_SUBSETS, INCEPTION_SCORE, CLIP_SCORE)


def check_names(also: Sequence[str]) -> None:
    """ValueError for a score that does not exist."""
    for name in also:
        if name not in ALSO:
            raise ValueError(f"no score {name!r}: choose from {', '.join(ALSO)}")


def score_features(
    generated: np.ndarray,
    reference: np.ndarray,
    suffix: Literal["r", "b"],
    *,
    cut: Cut = WHOLE,
    also: Sequence[str] = (),
) -> dict[str, Any]:
    """FID and KID with standard errors: keys fid_S, fid_S_se, kid_S, kid_S_se for suffix S; pfid_S, ... for crops.
    Keys fid_S_jackknife, ... hold what paired differences are made of.

    Args:
        generated: (n, dim) features, one row per prompt, n >= 3; of parts (n * cut.count, dim), image by image.
        reference: (m, dim) features of real images ("r") or of the same model's base-size images ("b"), m >= 2.
        suffix: which reference it is.
        cut: what the rows are features of: parts of one image are left out together in the standard error.
        also: more scores, of those in ``ALSO`` that need a reference: precision_S and recall_S, fid_infinity_S, and
            kid_subsets_S, which estimates what kid_S does and has its deviation over subsets, _std, instead of _se.

    FID is biased by about c / n, so scores with different n must not be compared.

    Raises:
        ValueError: unknown suffix or score, too few images, different dimensions, or values that are not finite.
    """
    if suffix not in ("r", "b"):
        raise ValueError(f"suffix must be 'r' (real images) or 'b' (base-size images), not {suffix!r}")
    check_names(also)
    images = len(generated) // cut.count
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
    groups = [(group[:, None] * cut.count + np.arange(cut.count)).ravel() for group in prompt_groups(images)]
    estimates = {"fid": estimate_fid(x, y, groups=groups), "kid": estimate_kid(x, y, groups=groups)}
    for name, score in COMPARED.items():
        if name in also:
            estimates |= estimate_all(lambda part, score=score: score(part, y), x, groups=groups)  # type: ignore[misc]
    prefix = "" if cut == WHOLE else "p"
    scores = as_metrics({f"{prefix}{name}_{suffix}": estimate for name, estimate in estimates.items()})
    if KID_SUBSETS in also:
        key = f"{prefix}{KID_SUBSETS}_{suffix}"
        scores[key], scores[f"{key}_std"] = kid_of_subsets(x, y)
    return scores


def score_alone(
    features: np.ndarray, extractor: FeatureExtractor, *, cut: Cut, also: Sequence[str], texts: Sequence[str]
) -> dict[str, Any]:
    """Those of ``also`` that need no reference: inception_score, with its deviation over ten parts under _std, and
    clip_score of the pictures with their texts. ValueError for parts of pictures or an extractor that cannot give it.
    """
    check_names(also)
    for name, able in ((INCEPTION_SCORE, Inception), (CLIP_SCORE, ViT)):
        if name in also and (cut != WHOLE or not isinstance(extractor, able) or extractor.name != name.split("_")[0]):
            needed = name.split("_")[0]
            raise ValueError(f"{name} needs whole pictures and {needed} features, not {cut} and {extractor.name}")
    found: dict[str, Any] = {}
    if INCEPTION_SCORE in also:
        if len(features) <= INCEPTION_PARTS:
            raise ValueError(
                f"{INCEPTION_SCORE} needs more than {INCEPTION_PARTS} images, not {len(features)}: as many parts, and "
                "one image to leave out for the standard error"
            )
        logits = cast(Inception, extractor).logits(features)
        found = as_metrics(estimate_all(lambda part: {INCEPTION_SCORE: inception_score(part)[0]}, logits))
        found[f"{INCEPTION_SCORE}_std"] = inception_score(logits)[1]
    if CLIP_SCORE in also:
        alike = clip_scores(features, cast(ViT, extractor).embed_texts(texts))
        found |= as_metrics({CLIP_SCORE: estimate_mean(alike)})
    return found


def as_metrics(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Plain values for metrics.json: each score, its standard error, and what `as_estimate` needs."""
    values: dict[str, Any] = {}
    for name, estimate in estimates.items():
        values |= {name: estimate.value, f"{name}_se": estimate.se}
        values[f"{name}_jackknife"] = [list(estimate.without), list(estimate.group_sizes)]
    return values


def as_estimate(metrics: Mapping[str, Any], name: str) -> Estimate:
    """A score of metrics.json, for paired differences."""
    without, sizes = metrics[f"{name}_jackknife"]
    return Estimate(metrics[name], tuple(without), tuple(sizes))
