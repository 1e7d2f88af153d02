"""Scoring a run: images on disk -> features -> scores/*.json and metrics.json.

fid_r and kid_r compare with real images at the target size, fid_b and kid_b with the same model's samples for the same
prompts at its training size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from eval.crops import WHOLE, Cropping, parse_crops
from eval.features import FeatureExtractor, crop_extractor, images_to_features
from eval.images import ImageFile
from eval.repetition import CopyCounter
from eval.score import as_metrics, check_names, score_alone, score_features
from eval.uncertainty import MINIMUM_IMAGES, estimate_mean
from experiments.sampling.batches import Progress, no_progress
from experiments.sampling.checking import is_cost
from experiments.sampling.generate import generate_run, is_complete
from experiments.sampling.manifest import FEATURES, Record, images_digest, prompts_digest, read_lines, read_records
from experiments.scenes.scene_counter import SceneCounter
from experiments.scenes.scene_features import SceneFeatures
from experiments.scoring.feature_spaces import build_extractor, protocol_of
from experiments.scoring.references import check_reference, reference_features, reference_protocols
from experiments.scoring.stored import sealed, store_scores, stored_scores
from experiments.setup.runs import Run, base_run

FACTORS = ("object", "colour")
REPETITIONS = ("scenes", "windows")
VERSION = 1  # of the scores: raise it when a change of the code makes other scores of the same images


def complete_run(run: Run, progress: Progress = no_progress) -> dict[str, Any] | None:
    """Generate what is missing of a run and of its base samples, and score it.

    Args:
        progress: told after each batch how many of the run's images there are.

    Returns:
        The scores; None if the run is not to be scored (metrics=none), or other shards of it are not finished, or this
        one is generated without locks: then whoever gathers the shards also generates the base samples.
    """
    if run.metrics.extractor is None:
        generate_run(run, progress)
        return None
    check_scorable(run)
    base = base_run(run)
    generate_run(run, progress)
    if run.apart:
        return None
    if base.folder != run.folder:
        generate_run(base)
    if not (is_complete(run) and is_complete(base)):
        return None
    return score_run(replace(run, verify=False), again=False)  # the images were just looked at


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
    if not run.metrics.crops:
        return [WHOLE]
    return [WHOLE, parse_crops(run.metrics.crops, crop_extractor(extractor).side, min(run.height, run.width))]


def images_of(run: Run, records: Sequence[Record]) -> list[ImageFile]:
    """The images of the run's prompts in their order; ValueError if some are missing."""
    files = {record.id: run.folder / record.file for record in records}
    missing = [prompt.id for prompt in run.prompts if prompt.id not in files]
    if missing:
        raise ValueError(f"{run.folder} lacks {len(missing)} images: generate them with python -m experiments.run")
    return [ImageFile(files[prompt.id], prompt.id) for prompt in run.prompts]


def score_run(run: Run, *, again: bool = True) -> dict[str, Any]:
    """Score a complete run; write its ``scores_file``, which tables read, and a copy as the run's ``metrics.json``.

    Args:
        again: also if the stored scores are of these images and under this protocol, which are returned otherwise.
    """
    extractor, base, trust = extractor_of(run), base_run(run), not run.verify
    croppings, size = croppings_of(run, extractor), (run.height, run.width)
    records = read_records(run.folder, trust=trust)
    base_records = records if base.folder == run.folder else read_records(base.folder, trust=trust)
    images, base_images = images_of(run, records), images_of(base, base_records)
    protocols = reference_protocols(run.metrics.reference, extractor, croppings, features_cache(run), size)
    ids = [prompt.id for prompt in run.prompts]
    about = {
        "images": {"sha256": images_digest(records, ids), "base_sha256": images_digest(base_records, ids)},
        "protocol": run_protocol(run, base, extractor, dict(zip(map(str, croppings), protocols, strict=True))),
        "version": VERSION,
    }
    latest = run.folder / "metrics.json"
    stored = None if again else stored_scores(run.scores_file)
    if stored is not None and about == {key: stored.get(key) for key in about}:
        if stored_scores(latest) is None:
            store_scores(stored, latest)
        return stored
    scores: dict[str, Any] = {"n": len(images)}
    scores |= compare_images(run, base, extractor, images, base_images)
    scores |= costs_per_image(run.folder)
    scores = sealed(scores | about)
    for path in (run.scores_file, latest):
        store_scores(scores, path)
    return scores


def compare_images(
    run: Run, base: Run, extractor: FeatureExtractor, images: Sequence[ImageFile], base_images: Sequence[ImageFile]
) -> dict[str, Any]:
    """All scores of a run's images: against the reference, against the base samples, and their own."""
    also, croppings = run.metrics.also, croppings_of(run, extractor)
    found = images_to_features(images, extractor, cache_dir=run.folder / FEATURES, croppings=croppings)
    size = run.height, run.width
    references = reference_features(run.metrics.reference, extractor, croppings, features_cache(run), size)
    scores: dict[str, Any] = {}
    ids = [prompt.id for prompt in run.prompts]
    for cropping, features, reference in zip(croppings, found, references, strict=True):
        scores |= score_features(features, reference.features, "r", ids=ids, cropping=cropping, also=also)
    texts = [prompt.text for prompt in run.prompts]
    scores |= score_alone(found[0], extractor, cropping=WHOLE, also=also, texts=texts, ids=ids)
    (base_features,) = images_to_features(base_images, extractor, cache_dir=base.folder / FEATURES)
    if base.folder != run.folder:
        scores |= score_features(found[0], base_features, "b", ids=ids)
    if run.metrics.repetition == "scenes":
        scores |= scene_scores(run, images)
    elif run.metrics.repetition == "windows":
        scores |= window_repetition(images, extractor, base_features)
    return scores


def run_protocol(
    run: Run, base: Run, extractor: FeatureExtractor, references: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What identifies the measurement: rows of a table that differ in any of it are not comparable."""
    whole, *crops = references.values()
    kept = ("source", "n", "left_out", "sha256")
    on_scenes = run.metrics.repetition == "scenes"
    return protocol_of(extractor, WHOLE) | {
        "reference": {key: whole[key] for key in kept},
        "crops": str(list(references)[-1]) if crops else None,
        "crop_extractor_sha256": crops[0]["extractor_sha256"] if crops else None,
        "crop_reference": {key: crops[0][key] for key in kept} if crops else None,
        "repetition": run.metrics.repetition,
        "repetition_sha256": SceneCounter().digest if on_scenes else None,
        "accuracy_sha256": SceneFeatures().digest if on_scenes else None,
        "prompts_sha256": prompts_digest((prompt.id, prompt.text) for prompt in run.prompts),
        "model_sha256": run.model.digest,
        "dtype": run.model.dtype,
        "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
        "base_run": base.digest,  # last: the others say why it differs
    }


def features_cache(run: Run) -> Path:
    """Features of references, shared by all runs of a folder."""
    return run.runs / ".cache" / "features"


def scene_scores(run: Run, images: Sequence[ImageFile]) -> dict[str, Any]:
    """What the scenes networks see: how many objects an image holds beyond one (counter), and the share of images with
    the prompted object and colour (structure network).
    """
    predict, count = SceneFeatures().predict, SceneCounter()
    seen, copies = [], []
    for image in images:
        pixels = image.pixels()[None]
        seen.append(predict(pixels))
        copies.append(count(pixels))
    found = np.concatenate(copies).astype(np.float64)
    scores = as_metrics({"repetition": estimate_mean(found - 1, ids=[image.name for image in images])})
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
    lines = [line for path in sorted(folder.glob("costs*.jsonl")) for line in read_lines(path)]
    entries = [line for line in lines if is_cost(line)]
    images = sum(entry["images"] for entry in entries)
    names = {"seconds": "seconds_per_image", "unet_evaluations": "unet_evaluations_per_image"}
    return {name: round(sum(e[key] for e in entries) / images, 3) for key, name in names.items()} if images else {}
