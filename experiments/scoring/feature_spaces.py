"""Feature spaces by name, and the part of a score's protocol that they decide."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from eval.crops import Cropping
from eval.extractors import VITS, Inception, ViT
from eval.features import FeatureExtractor, extractor_for
from eval.resize import RESIZES
from experiments.scenes.scene_features import SceneFeatures
from experiments.setup.processes import own_device

EXTRACTORS = ("inception", *VITS, "scenes")


@cache
def build_extractor(name: str, weights: str | None = None, how: str = "clean") -> FeatureExtractor:
    """The feature extractor called ``name``.

    Args:
        weights: file of inception, folder or hub id of dinov2 and clip, folder of the scenes networks; None: the
            published ones.
        how: resizing to the extractor's input, see `eval.resize`.

    Raises:
        ValueError: unknown name or resizing.
        FileNotFoundError: weights that are neither at hand nor can be fetched.
    """
    if name not in EXTRACTORS:
        raise ValueError(f"no extractor {name!r}: choose from {', '.join(EXTRACTORS)}")
    if how not in RESIZES:
        raise ValueError(f"resize is one of {', '.join(RESIZES)}, not {how!r}")
    own_device()  # where the networks below are put
    if name == "scenes":
        return SceneFeatures(Path(weights)) if weights else SceneFeatures()
    if name == "inception":
        return Inception(Path(weights) if weights else None, how)
    return ViT(name, weights, how)


def protocol_of(extractor: FeatureExtractor, cropping: Cropping) -> dict[str, Any]:
    """What has to be equal on both sides of a score, and in all rows of a table."""
    extractor = extractor_for(extractor, cropping)
    return {
        "extractor": extractor.name,
        "extractor_sha256": getattr(extractor, "sha256", extractor.digest),
        "resizing": extractor.resizing,
        "crops": str(cropping),
    }
