"""What each score sees: rendered scenes are damaged in known steps and scored like generated images.

Every damaged set is compared with the untouched images that it was made from, so the difference of two scores has a
paired standard error, and a response is given in units of it.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from eval.corruptions import CORRUPTIONS, corrupt
from eval.crops import WHOLE, Cropping, parse_crops
from eval.features import FeatureExtractor, crop_extractor, images_to_features
from eval.fid import Stats
from eval.images import LazyImage
from eval.score import as_estimate, score_features
from eval.uncertainty import Estimate, estimate_mean
from experiments.scenes.rendered import RenderedImage, rendered_images
from experiments.scenes.scene_counter import SceneCounter
from experiments.scenes.scene_features import SceneFeatures
from experiments.scoring.references import SCENES, reference_features
from experiments.scoring.runs import FACTORS
from experiments.setup.runs import ReferenceSpec

IMAGES_SEED, REFERENCE_SEED = 83, 2  # of `sample_scenes`: disjoint sets, and the reference that runs have
REFERENCE_COUNT = 512
COPIES = {1: 2, 2: 4, 3: 9, 4: 16, 5: 25}  # step -> number of objects
KINDS = (*CORRUPTIONS, "copies")
JUDGED = 16  # images per call of the networks
# Score -> the sign of a change for the worse.
WORSE = {
    "fid_r": 1,
    "kid_r": 1,
    "pfid_r": 1,
    "pkid_r": 1,
    "repetition": 1,
    "object_accuracy": -1,
    "colour_accuracy": -1,
}
SEEN = 3.0  # standard errors
DECISIVE_STEP = 2


@cache
def corruptions_source() -> str:
    """Source of `eval.corruptions`, so that changed corruptions invalidate cached features."""
    return Path(inspect.getfile(corrupt)).read_text(encoding="utf-8")


@dataclass(frozen=True)
class CorruptedImage:
    """`eval.images.LazyImage` of another image after `corrupt`; keeps its pixels. Step 0 is the image itself."""

    original: LazyImage
    kind: str
    step: int

    @property
    def name(self) -> str:
        return self.original.name

    def stamp(self) -> str:
        return self.digest()

    def digest(self) -> str:
        described = f"{self.original.digest()} {self.kind} {self.step} {corruptions_source()}"
        return hashlib.sha256(described.encode()).hexdigest()

    def size(self) -> tuple[int, int]:
        return self.original.size()

    def pixels(self) -> np.ndarray:
        return self.kept

    @cached_property
    def kept(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        return corrupt(self.original.pixels(), self.kind, self.step, self.name)


def copied(image: RenderedImage, count: int) -> RenderedImage:
    """The same scene with ``count`` objects instead of one."""
    return replace(image, scene=replace(image.scene, copies=count))


def corrupted_sets(images: Sequence[RenderedImage]) -> Iterator[tuple[str, int, str, list[CorruptedImage]]]:
    """(kind, step, strength, images) of every corruption at every step, one at a time to spare memory."""
    untouched = [CorruptedImage(image, "blur", 0) for image in images]
    for kind, corruption in CORRUPTIONS.items():
        for step, strength in enumerate(corruption.strengths, start=1):
            yield kind, step, f"{strength:g}", [CorruptedImage(image, kind, step) for image in untouched]
    for step, count in COPIES.items():
        yield "copies", step, str(count), [CorruptedImage(copied(image, count), "blur", 0) for image in images]


@dataclass(frozen=True)
class SceneScorer:
    """Scores sets of images of the same scenes, as runs are scored (`experiments.scoring.runs`)."""

    scenes: Sequence[RenderedImage]
    extractor: FeatureExtractor
    croppings: Sequence[Cropping]
    references: Sequence[np.ndarray | Stats]
    cache: Path

    def scores(self, images: Sequence[LazyImage]) -> dict[str, Estimate]:
        """All scores of ``WORSE``; ``images`` show ``scenes`` in their order."""
        found = images_to_features(images, self.extractor, cache_dir=self.cache, croppings=self.croppings)
        estimates: dict[str, Estimate] = {}
        for cropping, features, reference in zip(self.croppings, found, self.references, strict=True):
            scores = score_features(features, reference, "r", cropping=cropping)
            names = [name for name in WORSE if f"{name}_jackknife" in scores]
            estimates |= {name: as_estimate(scores, name) for name in names}
        return estimates | self.judged(images)

    def judged(self, images: Sequence[LazyImage]) -> dict[str, Estimate]:
        """Copies beyond one, and the share of images whose object and colour are recognised."""
        predict, count = SceneFeatures().predict, SceneCounter()
        copies: list[np.ndarray] = []
        hits: dict[str, list[float]] = {factor: [] for factor in FACTORS}
        for start in range(0, len(images), JUDGED):
            part = slice(start, start + JUDGED)
            pixels = np.stack([image.pixels() for image in images[part]])
            seen = predict(pixels)
            copies.append(count(pixels))
            for factor in FACTORS:
                wanted = [getattr(image.scene, factor) for image in self.scenes[part]]
                hits[factor] += [float(a == b) for a, b in zip(seen[factor], wanted, strict=True)]
        estimates = {"repetition": estimate_mean(np.concatenate(copies).astype(np.float64) - 1)}
        return estimates | {f"{factor}_accuracy": estimate_mean(np.array(hits[factor])) for factor in FACTORS}


def open_scorer(extractor: FeatureExtractor, count: int, size: int, crops: str, cache: Path) -> SceneScorer:
    """Scores of ``count`` scenes of size x size pixels, whole and in ``crops``, against as many as runs have."""
    croppings = [WHOLE, parse_crops(crops, crop_extractor(extractor).side, size)]
    spec = ReferenceSpec(SCENES, REFERENCE_COUNT, seed=REFERENCE_SEED)
    references = reference_features(spec, extractor, croppings, cache, (size, size))
    scenes = rendered_images(count, IMAGES_SEED, size, size)
    return SceneScorer(scenes, extractor, croppings, [reference.features for reference in references], cache)


def measure_responses(scorer: SceneScorer) -> pd.DataFrame:
    """The response of every score to every corruption.

    Returns:
        One row for each (corruption, step, score), step 0 being the untouched images: strength, value, se, the paired
        ``difference`` to the untouched images with ``difference_se``, and ``errors``, their ratio.
    """
    untouched = scorer.scores(scorer.scenes)
    rows = [response(kind, 0, "", name, untouched[name], untouched[name]) for kind in KINDS for name in WORSE]
    total = sum(len(corruption.strengths) for corruption in CORRUPTIONS.values()) + len(COPIES)
    for kind, step, strength, images in tqdm(corrupted_sets(scorer.scenes), "corrupted sets", total, disable=None):
        scores = scorer.scores(images)
        rows += [response(kind, step, strength, name, scores[name], untouched[name]) for name in WORSE]
    return pd.DataFrame(rows)


def response(
    kind: str, step: int, strength: str, name: str, score: Estimate, untouched: Estimate
) -> dict[str, object]:
    """One row of `measure_responses`."""
    difference, se = score.minus(untouched)
    errors = difference / se if se else np.copysign(np.inf, difference) if difference else 0.0
    about = {"corruption": kind, "step": step, "strength": strength, "score": name}
    found = {"value": score.value, "se": score.se, "difference": difference, "difference_se": se, "errors": errors}
    return about | found


def what_scores_see(responses: pd.DataFrame) -> pd.DataFrame:
    """For each corruption (rows) and score (columns) one of four words.

    ``yes``: at the second step worse than untouched by more than three standard errors, and no step better than the
    one before. ``uneven``: the same, but some step is better than the one before. ``late``: three standard errors are
    reached at a later step only. ``no``: never.
    """
    table = pd.DataFrame(index=pd.Index(KINDS, name="corruption"), columns=list(WORSE), dtype=object)
    for (kind, name), rows in responses.groupby(["corruption", "score"]):
        ordered = rows.set_index("step").sort_index()
        worse = WORSE[str(name)] * ordered[["difference", "errors"]]
        seen = worse["errors"] > SEEN
        if seen[DECISIVE_STEP]:
            word = "yes" if (worse["difference"].diff()[1:] >= 0).all() else "uneven"
        else:
            word = "late" if seen[seen.index > DECISIVE_STEP].any() else "no"
        table.loc[kind, name] = word
    return table
