"""Scores of one set of generated images against one reference set, as they go into metrics.json."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from eval.frechet import checked_features
from eval.uncertainty import MINIMUM_IMAGES, Estimate, estimate_fid, estimate_kid, prompt_groups


def score_features(
    generated: np.ndarray, reference: np.ndarray, suffix: Literal["r", "b"], *, crops: int | None = None
) -> dict[str, Any]:
    """FID and KID with standard errors: keys fid_S, fid_S_se, kid_S, kid_S_se for suffix S; pfid_S, ... for crops.
    Keys fid_S_jackknife, ... hold what paired differences are made of.

    Args:
        generated: (n, dim) features, one row per prompt, n >= 3; of crops (n * crops, dim), image by image.
        reference: (m, dim) features of real images ("r") or of the same model's base-size images ("b"), m >= 2.
        suffix: which reference it is.
        crops: how many rows belong to each image: crops of one image are left out together in the standard error.

    FID is biased by about c / n, so scores with different n must not be compared: see `require_equal_counts`.

    Raises:
        ValueError: unknown suffix, too few images, different dimensions, or values that are not finite.
    """
    if suffix not in ("r", "b"):
        raise ValueError(f"suffix must be 'r' (real images) or 'b' (base-size images), not {suffix!r}")
    images = len(generated) // (crops or 1)
    if images < MINIMUM_IMAGES:
        raise ValueError(f"a score needs at least {MINIMUM_IMAGES} generated images, not {images}: use more prompts")
    if len(reference) < 2:
        raise ValueError(f"a score needs at least 2 reference images, not {len(reference)}: add images")
    generated, reference = checked_features(generated), checked_features(reference)
    if generated.shape[1] != reference.shape[1]:
        raise ValueError(
            f"generated features have {generated.shape[1]} dimensions and the reference {reference.shape[1]}: "
            "extract both with the same extractor"
        )
    groups = prompt_groups(images)
    if crops:
        groups = [(group[:, None] * crops + np.arange(crops)).ravel() for group in groups]
    prefix = "p" if crops else ""
    estimates = {
        f"{prefix}fid_{suffix}": estimate_fid(generated, reference, groups=groups),
        f"{prefix}kid_{suffix}": estimate_kid(generated, reference, groups=groups),
    }
    return as_metrics(estimates)


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


def require_equal_counts(counts: Mapping[str, int]) -> None:
    """ValueError unless all scores that are about to be compared (name to number of images) have the same count."""
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name}: {n}" for name, n in counts.items())
        raise ValueError(
            f"scores from different numbers of images cannot be compared ({listed}): finish the runs or use one limit"
        )
