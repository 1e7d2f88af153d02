"""`python -m experiments.score --images DIR --reference DIR`: FID and KID of any two folders, no run needed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eval.crops import Crops, large_enough
from eval.extractors import VITS, Inception, ViT
from eval.features import FeatureExtractor, images_to_features
from eval.images import list_images
from eval.resize import RESIZES
from eval.score import score_features
from experiments.scenes.features import SceneFeatures


def build_extractor(name: str, weights: str | None, how: str) -> FeatureExtractor:
    """The feature space of a name; errors say which file or model is missing."""
    if name == "scenes":
        return SceneFeatures(Path(weights)) if weights else SceneFeatures()
    if name == "inception":
        return Inception(Path(weights) if weights else None, how)
    return ViT(name, weights, how)


def parse_crops(text: str) -> Crops:
    """``SIZE:COUNT``, as in 299:10."""
    size, colon, count = text.partition(":")
    if not (colon and size.isdecimal() and count.isdecimal() and int(size) and int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not SIZE:COUNT, as in 299:10 (ten crops of 299x299 an image)")
    return Crops(int(size), int(count))


def folder_features(
    folder: Path, extractor: FeatureExtractor, cache: Path, crops: Crops | None, real: bool
) -> tuple[np.ndarray, dict[str, Any]]:
    """Features of a folder of images and what is to be said about it. Real images below a crop are left out."""
    found = list_images(folder)
    paths = large_enough(found, crops.size) if crops and real else found
    if not paths:
        raise ValueError(f"no image in {folder} has {crops.size if crops else 0} pixels on its shorter side")
    about: dict[str, Any] = {"folder": str(folder), "n": len(paths), "left_out": len(found) - len(paths)}
    cached = partial(images_to_features, paths, extractor, cache_dir=cache, crops=crops)
    return cached(mixed_sizes=real), about


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.score", description="FID and KID, with standard errors, of two folders of images."
    )
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="generated images")
    add("--reference", type=Path, required=True, metavar="DIR", help="real images")
    add("--features", choices=("inception", *VITS, "scenes"), default="inception")
    add("--weights", metavar="PATH", help="weights file of inception; folder or hub id of dinov2 and clip")
    add("--resize", choices=RESIZES, default="clean", help="to the extractor's input (default: clean)")
    add("--crops", type=parse_crops, metavar="SIZE:COUNT", help="score native-resolution crops, never resized before")
    add("--cache", type=Path, default=Path("runs/.cache/features"), metavar="DIR")
    add("--out", type=Path, metavar="FILE", help="write the scores there, too")
    return parser


def score_folders(arguments: Sequence[str]) -> None:
    """Print the scores as JSON."""
    options = build_parser().parse_args(arguments)
    for folder in (options.images, options.reference):
        list_images(folder)
    extractor = build_extractor(options.features, options.weights, options.resize)
    reference, real = folder_features(options.reference, extractor, options.cache, options.crops, real=True)
    generated, images = folder_features(options.images, extractor, options.cache, options.crops, real=False)
    count = options.crops.count if options.crops else None
    scores: dict[str, Any] = {"n": images["n"], **score_features(generated, reference, "r", crops=count)}
    scores["protocol"] = {
        "extractor": extractor.name,
        "extractor_sha256": getattr(extractor, "sha256", extractor.digest),
        "resize": options.resize if options.features != "scenes" else "scenes",
        "crops": vars(options.crops) if options.crops else None,
        "images": images,
        "reference": real,
    }
    text = json.dumps(scores, indent=2)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)
