"""Scoring of a cell: pictures on disk -> features -> metrics.json. `python -m experiments.scoring.runs [overrides]` does it
again for a finished run; with --images and --reference it scores any two folders (`experiments.scoring.folders`).

fid_r and kid_r compare with real pictures at the target size, fid_b and kid_b with the same model's pictures for the
same prompts at its training size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from eval.crops import WHOLE, Cut, parse_crops
from eval.features import FeatureExtractor, images_to_features
from eval.images import FilePicture
from eval.repetition import Windows
from eval.score import as_metrics, check_names, score_alone, score_features
from eval.uncertainty import MINIMUM_IMAGES, estimate_mean
from experiments.sampling.manifest import read_records, write_atomically
from experiments.scenes.features import SceneFeatures
from experiments.scoring.feature_spaces import build_extractor, protocol_of
from experiments.scoring.folders import score_folders
from experiments.setup.command_line import command
from experiments.setup.config import Cell, base_overrides, build_cell, compose_config

FACTORS = ("object", "colour")
REPETITIONS = ("scenes", "windows")


def check_scorable(cell: Cell) -> None:
    """ValueError or FileNotFoundError, before anything is drawn, if this cell could not be scored."""
    metrics = cell.metrics
    if len(cell.prompts) < MINIMUM_IMAGES:
        raise ValueError(
            f"{len(cell.prompts)} prompts are too few for a score: set prompts.limit to {MINIMUM_IMAGES} or more, "
            "or metrics=none to draw only"
        )
    if metrics.repetition not in (None, *REPETITIONS):
        raise ValueError(f"metrics.repetition is null, {' or '.join(REPETITIONS)}, not {metrics.repetition!r}")
    check_names(metrics.also)
    metrics.reference.check()
    cuts_of(cell, extractor_of(cell))


def extractor_of(cell: Cell) -> FeatureExtractor:
    metrics = cell.metrics
    if metrics.extractor is None:
        raise ValueError("metrics=none draws only: choose an extractor, as metrics=scenes or metrics=inception")
    return build_extractor(metrics.extractor, metrics.weights, metrics.resize)


def cuts_of(cell: Cell, extractor: FeatureExtractor) -> list[Cut]:
    """Whole pictures, and the crops that are asked for."""
    side = min(cell.height, cell.width)
    return [WHOLE, *([parse_crops(cell.metrics.crops, extractor.side, side)] if cell.metrics.crops else [])]


def pictures_of(cell: Cell, folder: Path) -> list[FilePicture]:
    """Pictures of the cell's prompts in their order, from ``folder``."""
    files = {record.id: folder / record.file for record in read_records(folder)}
    return [FilePicture(files[prompt.id], prompt.id) for prompt in cell.prompts]


def seen_in(cell: Cell, pictures: Sequence[FilePicture]) -> dict[str, Any]:
    """What the scenes classifier sees: the share of pictures with the prompted object and colour, and how many copies
    of the object a picture holds beyond one.
    """
    judge = SceneFeatures().judge
    seen, copies = zip(*(judge(picture.pixels()[None]) for picture in pictures), strict=True)
    scores = as_metrics({"repetition": estimate_mean(np.concatenate(copies) - 1)})
    for factor in FACTORS:
        hits = [s[factor][0] == getattr(p.scene, factor) for s, p in zip(seen, cell.prompts, strict=True) if p.scene]
        if hits:
            scores[f"{factor}_accuracy"] = sum(hits) / len(hits)
    return scores


def seen_in_windows(
    pictures: Sequence[FilePicture], extractor: FeatureExtractor, targets: np.ndarray
) -> dict[str, Any]:
    """Copies beyond one as `eval.repetition` counts them, like the same prompt's picture at training size."""
    pairs = tqdm(zip(pictures, targets, strict=True), total=len(pictures), desc="repetition", unit="img", leave=False)
    copies = [Windows().copies(picture.pixels(), extractor, target) for picture, target in pairs]
    return as_metrics({"repetition": estimate_mean(np.array(copies, dtype=float) - 1)})


def costs_per_image(folder: Path) -> dict[str, float]:
    """Seconds and U-Net evaluations of one picture, over all batches that were drawn."""
    lines = (line for path in sorted(folder.glob("costs*.jsonl")) for line in path.read_text().splitlines())
    entries = [json.loads(line) for line in lines]
    images = sum(entry["images"] for entry in entries)
    names = {"seconds": "seconds_per_image", "unet_evaluations": "unet_evaluations_per_image"}
    return {name: round(sum(e[key] for e in entries) / images, 3) for key, name in names.items()} if images else {}


def score_cell(cell: Cell, base_folder: Path) -> dict[str, Any]:
    """Score a drawn cell; write its ``scores_file``, which tables read, and the same as the run's ``metrics.json``."""
    extractor, also = extractor_of(cell), cell.metrics.also
    cuts = cuts_of(cell, extractor)
    pictures = pictures_of(cell, cell.folder)
    found = images_to_features(pictures, extractor, cache_dir=cell.folder / "features", cuts=cuts)
    cache = cell.runs / ".cache" / "features"
    references = cell.metrics.reference.features(extractor, cuts, cache, cell.height, cell.width)
    scores: dict[str, Any] = {"n": len(pictures)}
    for cut, features, reference in zip(cuts, found, references, strict=True):
        scores |= score_features(features, reference.features, "r", cut=cut, also=also)
    texts = [prompt.text for prompt in cell.prompts]
    scores |= score_alone(found[0], extractor, cut=WHOLE, also=also, texts=texts)
    (base,) = images_to_features(pictures_of(cell, base_folder), extractor, cache_dir=base_folder / "features")
    if base_folder != cell.folder:
        scores |= score_features(found[0], base, "b")
    if cell.metrics.repetition == "scenes":
        scores |= seen_in(cell, pictures)
    elif cell.metrics.repetition == "windows":
        scores |= seen_in_windows(pictures, extractor, base)
    scores |= costs_per_image(cell.folder)
    about = {key: references[0].protocol[key] for key in ("source", "n", "left_out")}
    protocol = protocol_of(extractor, WHOLE) | {"crops": str(cuts[-1]) if cell.metrics.crops else None}
    scores["protocol"] = protocol | {"repetition": cell.metrics.repetition, "reference": about}
    cell.scores_file.parent.mkdir(exist_ok=True)
    for path in (cell.scores_file, cell.folder / "metrics.json"):
        write_atomically(path, (json.dumps(scores, indent=2) + "\n").encode())
    return scores


def rescore(overrides: Sequence[str]) -> None:
    """Score a finished cell again and print its scores."""
    cell = build_cell(compose_config(overrides))
    base = build_cell(compose_config(base_overrides(overrides, len(cell.prompts))))
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
