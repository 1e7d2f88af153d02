"""Scoring of a cell: pictures on disk -> features -> metrics.json. `python -m experiments.score [overrides]` does it
again for a finished run; with --images and --reference it scores any two folders (`experiments.score_folders`).

fid_r and kid_r compare with real pictures at the target size, fid_b and kid_b with the same model's pictures for the
same prompts at its training size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from eval.features import FeatureExtractor, images_to_features
from eval.images import load_image
from eval.score import as_metrics, score_features
from eval.uncertainty import estimate_mean
from experiments.config import Cell, build_cell, command, compose_config
from experiments.manifest import read_records, write_atomically
from experiments.scenes.features import SceneFeatures
from experiments.scenes.render import render, sample_scenes
from experiments.score_folders import score_folders

MINIMUM = 3  # below it no standard error exists
FACTORS = ("object", "colour")


def check_scorable(cell: Cell) -> None:
    """ValueError, before anything is drawn, if this cell could not be scored."""
    if len(cell.prompts) < MINIMUM:
        raise ValueError(
            f"{len(cell.prompts)} prompts are too few for a score: set prompts.limit to {MINIMUM} or more, "
            "or metrics=none to draw only"
        )
    if cell.metrics.extractor != "scenes":
        raise ValueError(f"no extractor {cell.metrics.extractor!r}: metrics=scenes or metrics=none")
    crops = cell.metrics.crops
    if crops and crops.size > min(cell.height, cell.width):
        raise ValueError(
            f"crops of {crops.size} pixels do not fit into {cell.height}x{cell.width}: set metrics.crops.size or "
            "metrics.crops=null"
        )
    SceneFeatures()


def reference_features(cell: Cell, extractor: FeatureExtractor) -> dict[str, NDArray[np.float32]]:
    """Features of scenes rendered at the target size ("whole") and of their crops ("crops", none without), cached
    beside the runs.
    """
    count, seed, crops = cell.metrics.reference_count, cell.metrics.reference_seed, cell.metrics.crops
    scenes = sample_scenes(count, seed)
    key = hashlib.sha256(repr((scenes, cell.height, cell.width, crops, extractor.digest)).encode()).hexdigest()[:16]
    path = cell.runs / ".cache" / f"reference-{cell.height}x{cell.width}-{key}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draw = partial(render, height=cell.height, width=cell.width)
        whole, cropped = [], [np.empty((0, extractor.dim), np.float32)]
        with ProcessPoolExecutor() as pool:
            pictures = pool.map(draw, scenes, chunksize=16)
            label = f"real pictures {cell.height}x{cell.width}"
            for index, picture in enumerate(tqdm(pictures, total=count, desc=label, unit="img")):
                whole.append(extractor(picture[None]))
                if crops:
                    cropped.append(extractor(crops.cut(picture, f"real-{index}")))
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, whole=np.concatenate(whole), crops=np.concatenate(cropped))
        temporary.replace(path)
    with np.load(path) as stored:
        return dict(stored)


def picture_paths(cell: Cell, folder: Path) -> list[Path]:
    """Pictures of the cell's prompts in their order, from ``folder``."""
    files = {record.id: folder / record.file for record in read_records(folder)}
    return [files[prompt.id] for prompt in cell.prompts]


def look_at(cell: Cell, paths: list[Path], extractor: SceneFeatures) -> dict[str, Any]:
    """What the classifier sees: the share of pictures with the prompted object and colour, and how many copies of the
    object a picture holds beyond one.
    """
    seen, copies = zip(*(extractor.judge(load_image(path)[None]) for path in paths), strict=True)
    scores = as_metrics({"repetition": estimate_mean(np.concatenate(copies) - 1)})
    for factor in FACTORS:
        hits = [s[factor][0] == getattr(p.scene, factor) for s, p in zip(seen, cell.prompts, strict=True) if p.scene]
        if hits:
            scores[f"{factor}_accuracy"] = sum(hits) / len(hits)
    return scores


def costs_per_image(folder: Path) -> dict[str, float]:
    """Seconds and U-Net evaluations of one picture, over all batches that were drawn."""
    path = folder / "costs.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    images = sum(entry["images"] for entry in entries)
    names = {"seconds": "seconds_per_image", "unet_evaluations": "unet_evaluations_per_image"}
    return {name: round(sum(e[key] for e in entries) / images, 3) for key, name in names.items()} if images else {}


def score_cell(cell: Cell, base_folder: Path) -> dict[str, Any]:
    """Score a drawn cell and write ``metrics.json``."""
    extractor = SceneFeatures()
    cached = partial(images_to_features, extractor=extractor, batch_size=16)
    paths = picture_paths(cell, cell.folder)
    features = cached(paths, cache_dir=cell.folder / "features")
    scores: dict[str, Any] = {"n": len(features)}
    reference = reference_features(cell, extractor)
    scores |= score_features(features, reference["whole"], "r")
    crops = cell.metrics.crops
    if crops:
        cropped = cached(paths, cache_dir=cell.folder / "features", crops=crops)
        scores |= score_features(cropped, reference["crops"], "r", crops=crops.count)
    if base_folder != cell.folder:
        base = cached(picture_paths(cell, base_folder), cache_dir=base_folder / "features")
        scores |= score_features(features, base, "b")
    scores |= look_at(cell, paths, extractor)
    scores |= costs_per_image(cell.folder)
    scores["protocol"] = {
        "extractor": extractor.name,
        "extractor_sha256": extractor.digest,
        "resize": "bicubic, antialiased, to 64x64",
        "reference": f"scenes rendered at {cell.height}x{cell.width}",
        "reference_count": cell.metrics.reference_count,
        "reference_seed": cell.metrics.reference_seed,
        "crops": None if crops is None else f"{crops.count} of {crops.size}x{crops.size} an image, seed {crops.seed}",
    }
    write_atomically(cell.folder / "metrics.json", (json.dumps(scores, indent=2) + "\n").encode())
    return scores


def rescore(overrides: Sequence[str]) -> None:
    """Score a finished cell again and print its scores."""
    cell = build_cell(compose_config(overrides))
    base = build_cell(compose_config([*overrides, "method=direct", "resolution=x1"]))
    for folder in (base.folder, cell.folder):
        missing = len(cell.prompts) - len(read_records(folder))
        if missing > 0:
            raise ValueError(f"{folder} lacks {missing} pictures: draw them with python -m experiments.run")
    print(json.dumps(score_cell(cell, base.folder), indent=2))


def score(arguments: Sequence[str]) -> None:
    """Two folders if there are options, else the finished run of these overrides."""
    if any(argument.startswith("-") for argument in arguments):
        score_folders(arguments)
    else:
        rescore(arguments)


if __name__ == "__main__":
    command(score)
