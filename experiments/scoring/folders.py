"""Scoring any two sets of images, no run needed; optionally a second set for the same prompts, with the paired
difference and its interval.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.crops import WHOLE, Cropping, parse_crops
from eval.features import FeatureExtractor, crop_extractor, images_to_features
from eval.fid import Stats
from eval.image_sets import captions, find_images
from eval.images import ImageFile
from eval.index import look_up, require_one_size
from eval.reference import save_reference
from eval.score import CLIP_SCORE, as_estimate, score_alone, score_features
from eval.uncertainty import interval_of
from experiments.scoring.feature_spaces import build_extractor, protocol_of
from experiments.scoring.references import check_reference, reference_features
from experiments.setup.runs import ReferenceSpec


@dataclass(frozen=True)
class Scorer:
    """Scores sets of images of one size against one reference."""

    extractor: FeatureExtractor
    cropping: Cropping
    reference: np.ndarray | Stats
    also: list[str]
    cache: Path

    def scores(self, images: list[ImageFile], texts: list[str]) -> dict[str, Any]:
        """Of a set of images; ``texts`` are their prompts, for CLIPScore."""
        require_one_size(images, look_up(images, self.cache))
        (features,) = images_to_features(images, self.extractor, cache_dir=self.cache, croppings=[self.cropping])
        ids, cropping, also = [image.name for image in images], self.cropping, self.also
        compared = score_features(features, self.reference, "r", ids=ids, cropping=cropping, also=also)
        alone = score_alone(features, self.extractor, cropping=cropping, also=also, texts=texts, ids=ids)
        return {"n": len(images)} | compared | alone


def score_folders(options: argparse.Namespace) -> dict[str, Any]:
    """The scores that the options of `experiments.score_folders` ask for, with their protocol."""
    spec = ReferenceSpec(options.reference, options.scenes, seed=2, minimum_side=options.minimum_side)
    images = find_images(options.images)
    size = require_one_size(images, look_up(images, options.cache))
    texts = captions(options.images, images) if CLIP_SCORE in options.also else []
    extractor = build_extractor(options.features, options.weights, options.resize)
    cropping = parse_crops(options.crops, crop_extractor(extractor).side, min(size)) if options.crops else WHOLE
    if options.whole_reference and cropping != WHOLE and crop_extractor(extractor) is not extractor:
        raise ValueError(
            f"{extractor.name} compares crops in another feature space than whole images: leave out --whole-reference"
        )
    croppings = [WHOLE if options.whole_reference else cropping]
    check_reference(spec, extractor, croppings, options.cache, size, options.also)
    (reference,) = reference_features(spec, extractor, croppings, options.cache, size)
    if options.save_reference:
        save_reference(reference, options.save_reference)
    scorer = Scorer(extractor, cropping, reference.features, options.also, options.cache)
    scores = scorer.scores(images, texts)
    if options.against:
        others = find_images(options.against)
        if [image.name for image in others] != [image.name for image in images]:
            raise ValueError(
                f"{options.against} and {options.images} hold images of different names: not the same prompts"
            )
        scores["against"] = difference(scores, scorer.scores(others, texts)) | {"images": str(options.against)}
    scores["protocol"] = protocol_of(extractor, cropping) | {
        "images": str(options.images),
        "reference": {key: reference.protocol[key] for key in ("source", "n", "left_out", "sha256", "crops")},
    }
    return scores


def difference(scores: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """For each score the first minus the second on the same prompts, its standard error, and the 95% interval."""
    found: dict[str, Any] = {}
    for name in (key.removesuffix("_jackknife") for key in scores if key.endswith("_jackknife")):
        estimate = as_estimate(scores, name)
        value, error = estimate.minus(as_estimate(others, name))
        interval = list(interval_of(value, error, len(estimate.group_sizes)))
        found[name] = {"other": others[name], "difference": value, "se": error, "interval95": interval}
    return found
