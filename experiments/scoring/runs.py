"""Scoring a run: images on disk -> features -> scores/*.json and metrics.json.

fid_r and kid_r compare with real images at the target size, fid_b and kid_b with the same model's samples for the same
prompts at its training size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from eval.crops import WHOLE, Cropping, parse_crops
from eval.features import FeatureExtractor, images_to_features
from eval.files import write_atomically
from eval.images import ImageFile
from eval.reference import Reference
from eval.repetition import CopyCounter
from eval.score import as_metrics, check_names, score_alone, score_features
from eval.uncertainty import MINIMUM_IMAGES, estimate_mean
from experiments.sampling.generate import generate_run, is_complete
from experiments.sampling.manifest import read_lines, read_records
from experiments.scenes.scene_features import SceneFeatures
from experiments.scoring.feature_spaces import build_extractor, protocol_of
from experiments.scoring.references import check_reference, reference_features
from experiments.setup.runs import Run, base_run

FACTORS = ("object", "colour")
REPETITIONS = ("scenes", "windows")


def complete_run(run: Run) -> dict[str, Any] | None:
    """Generate what is missing of a run and of its base samples, and score it.

    Returns:
        The scores; None if the run is not to be scored (metrics=none), or other shards of it are not finished.
    """
    if run.metrics.extractor is None:
        generate_run(run)
        return None
    check_scorable(run)
    base = base_run(run)
    generate_run(run)
    if base.folder != run.folder:
        generate_run(base)
    return score_run(run) if is_complete(run) and is_complete(base) else None


def check_scorable(run: Run) -> None:
    """ValueError or FileNotFoundError, before anything is sampled, if this run could not be scored."""
    metrics = run.metrics
    if len(run.prompts) < MINIMUM_IMAGES:
        raise ValueError(
            f"{len(run.prompts)} prompts are too few for a score: set prompts.limit to {MINIMUM_IMAGES} or more, "
            "or metrics=none to generate only"
        )
    if metrics.repetition not in (None, *REPETITIONS):
        raise ValueError(f"metrics.repetition is null, {' or '.join(REPETITIONS)}, not {metrics.repetition!r}")
    check_names(metrics.also)
    extractor = extractor_of(run)
    size = run.height, run.width
    check_reference(
        metrics.reference, extractor, croppings_of(run, extractor), features_cache(run), size, metrics.also
    )


def extractor_of(run: Run) -> FeatureExtractor:
    metrics = run.metrics
    if metrics.extractor is None:
        raise ValueError("metrics=none does not score: choose an extractor, as metrics=scenes or metrics=inception")
    return build_extractor(metrics.extractor, metrics.weights, metrics.resize)


def croppings_of(run: Run, extractor: FeatureExtractor) -> list[Cropping]:
    """Whole images, and the crops that are asked for."""
    side = min(run.height, run.width)
    return [WHOLE, *([parse_crops(run.metrics.crops, extractor.side, side)] if run.metrics.crops else [])]


def images_of(run: Run) -> list[ImageFile]:
    """The images of the run's prompts in their order; ValueError if some are missing."""
    files = {record.id: run.folder / record.file for record in read_records(run.folder)}
    missing = [prompt.id for prompt in run.prompts if prompt.id not in files]
    if missing:
        raise ValueError(f"{run.folder} lacks {len(missing)} images: generate them with python -m experiments.run")
    return [ImageFile(files[prompt.id], prompt.id) for prompt in run.prompts]


def score_run(run: Run) -> dict[str, Any]:
    """Score a complete run; write its ``scores_file``, which tables read, and a copy as the run's ``metrics.json``."""
    extractor, also, base = extractor_of(run), run.metrics.also, base_run(run)
    croppings = croppings_of(run, extractor)
    images, base_images = images_of(run), images_of(base)
    found = images_to_features(images, extractor, cache_dir=run.folder / "features", croppings=croppings)
    size = run.height, run.width
    references = reference_features(run.metrics.reference, extractor, croppings, features_cache(run), size)
    scores: dict[str, Any] = {"n": len(images)}
    ids = [prompt.id for prompt in run.prompts]
    for cropping, features, reference in zip(croppings, found, references, strict=True):
        scores |= score_features(features, reference.features, "r", ids=ids, cropping=cropping, also=also)
    texts = [prompt.text for prompt in run.prompts]
    scores |= score_alone(found[0], extractor, cropping=WHOLE, also=also, texts=texts, ids=ids)
    (base_features,) = images_to_features(base_images, extractor, cache_dir=base.folder / "features")
    if base.folder != run.folder:
        scores |= score_features(found[0], base_features, "b", ids=ids)
    if run.metrics.repetition == "scenes":
        scores |= classifier_scores(run, images)
    elif run.metrics.repetition == "windows":
        scores |= window_repetition(images, extractor, base_features)
    scores |= costs_per_image(run.folder)
    scores["protocol"] = run_protocol(run, base, extractor, dict(zip(map(str, croppings), references, strict=True)))
    for path in (run.scores_file, run.folder / "metrics.json"):
        write_atomically(path, json.dumps(scores, indent=2) + "\n")
    return scores


def run_protocol(
    run: Run, base: Run, extractor: FeatureExtractor, references: Mapping[str, Reference]
) -> dict[str, Any]:
    """What identifies the measurement: rows of a table that differ in any of it are not comparable."""
    whole, *crops = references.values()
    kept = ("source", "n", "left_out", "sha256")
    prompts = json.dumps([[prompt.id, prompt.text] for prompt in run.prompts])
    return protocol_of(extractor, WHOLE) | {
        "reference": {key: whole.protocol[key] for key in kept},
        "crops": str(list(references)[-1]) if crops else None,
        "crop_reference": {key: crops[0].protocol[key] for key in kept} if crops else None,
        "repetition": run.metrics.repetition,
        "prompts_sha256": hashlib.sha256(prompts.encode()).hexdigest(),
        "model_sha256": run.model.digest,
        "dtype": run.model.dtype,
        "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
        "base_run": base.digest,  # last: the others say why it differs
    }


def features_cache(run: Run) -> Path:
    """Features of references, shared by all runs of a folder."""
    return run.runs / ".cache" / "features"


def classifier_scores(run: Run, images: Sequence[ImageFile]) -> dict[str, Any]:
    """What the scenes classifier sees: the share of images with the prompted object and colour, and how many copies of
    the object an image holds beyond one.
    """
    judge = SceneFeatures().judge
    seen, copies = zip(*(judge(image.pixels()[None]) for image in images), strict=True)
    scores = as_metrics(
        {"repetition": estimate_mean(np.concatenate(copies) - 1, ids=[image.name for image in images])}
    )
    for factor in FACTORS:
        hits = [s[factor][0] == getattr(p.scene, factor) for s, p in zip(seen, run.prompts, strict=True) if p.scene]
        if hits:
            scores[f"{factor}_accuracy"] = sum(hits) / len(hits)
    return scores


def window_repetition(images: Sequence[ImageFile], extractor: FeatureExtractor, targets: np.ndarray) -> dict[str, Any]:
    """Copies beyond one as `eval.repetition` counts windows that resemble the same prompt's base sample."""
    pairs = tqdm(zip(images, targets, strict=True), total=len(images), desc="repetition", unit="img", leave=False)
    copies = [CopyCounter().count(image.pixels(), extractor, target) for image, target in pairs]
    ids = [image.name for image in images]
    return as_metrics({"repetition": estimate_mean(np.array(copies, dtype=float) - 1, ids=ids)})


def costs_per_image(folder: Path) -> dict[str, float]:
    """Seconds and U-Net evaluations of one image, averaged over all batches that were generated."""
    entries = [entry for path in sorted(folder.glob("costs*.jsonl")) for entry in read_lines(path)]
    images = sum(entry["images"] for entry in entries)
    names = {"seconds": "seconds_per_image", "unet_evaluations": "unet_evaluations_per_image"}
    return {name: round(sum(e[key] for e in entries) / images, 3) for key, name in names.items()} if images else {}
