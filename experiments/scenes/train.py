"""`python -m experiments.scenes.train`: train all networks of the embedded world and write the pipeline folder. With
``--only`` it trains one of the three networks that scores use.

Every step is seeded by its number. Losses are logged to ``training_log.jsonl`` beside the weights, checkpoints are
kept under ``--work``, and an interrupted training resumes from the last one.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from eval.files import write_atomically
from experiments.scenes import WEIGHTS
from experiments.scenes.model import BASE_PX, assemble, build_tokenizer
from experiments.scenes.networks import DETAIL_FILE, REPETITION_FILE, STRUCTURE_FILE, save_network
from experiments.scenes.renderer.scene import sample_scenes
from experiments.scenes.scene_features import SceneFeatures
from experiments.scenes.training.autoencoder import measure_autoencoder, train_autoencoder
from experiments.scenes.training.counting import measure_counter, train_counter
from experiments.scenes.training.data import CLOSE_SEED, TRAIN_SEED, close_ups, rendered
from experiments.scenes.training.detail import measure_detail, train_detail
from experiments.scenes.training.diffusion import train_diffusion, training_latents
from experiments.scenes.training.sampled import sample_base, sampled_objects
from experiments.scenes.training.structure import measure_structure, train_structure
from experiments.setup.command_line import command

TRAIN_COUNT, CLOSE_UP_COUNT = 14_400, 4_320
LOG, REPORT = "training_log.jsonl", "report.json"
SCORING = ("structure", "detail", "counting")  # networks that scores use
SAMPLES, SAMPLE_SEED = 256, 505
COUNTED_SAMPLES = 384  # that the counter is trained on


def write_sheet(images: NDArray[np.uint8], path: Path, columns: int = 12) -> None:
    """Save the first 4 * ``columns`` of ``images`` (N, H, W, 3) as one PNG."""
    rows = [np.concatenate(list(images[r * columns : (r + 1) * columns]), axis=1) for r in range(4)]
    Image.fromarray(np.concatenate(rows)).save(path)


def train_scoring_network(name: str, work: Path, out: Path) -> dict[str, float]:
    """Train one network of ``SCORING`` and write its file.

    Args:
        name: which one.
        work: checkpoints and training sets; what is finished is not trained again.
        out: pipeline folder that gets the file; the counter needs all that is trained before it there.

    Returns:
        Quality measures on held-out scenes.
    """
    log = work / LOG
    network: nn.Module
    if name == "structure":
        network, file = train_structure(work, log, TRAIN_COUNT), STRUCTURE_FILE
        measures = measure_structure(network, work)
    elif name == "detail":
        network, file = train_detail(work, log), DETAIL_FILE
        measures = measure_detail(network, work)
    else:
        pipe = StableDiffusionPipeline.from_pretrained(out, torch_dtype=torch.float32, local_files_only=True)
        samples = sampled_objects(pipe, SceneFeatures(out).network, COUNTED_SAMPLES, work / "sampled.npy")
        network, file = train_counter(work, log, samples), REPETITION_FILE
        measures = measure_counter(network, work)
    save_network(network, out / file)
    return measures


def add_to_report(out: Path, measures: dict[str, float]) -> None:
    """Replace these measures in the report beside the weights."""
    path = out / REPORT
    known = json.loads(path.read_text()) if path.exists() else {}
    write_atomically(path, json.dumps(known | measures, indent=2) + "\n")


def training_sets(work: Path) -> list[NDArray[np.uint8]]:
    """Whole scenes and close-ups, each (N, 128, 128, 3) uint8."""
    whole, close = sample_scenes(TRAIN_COUNT, TRAIN_SEED), close_ups(CLOSE_UP_COUNT, CLOSE_SEED)
    return [rendered(whole, BASE_PX, work / "train.npy"), rendered(close, BASE_PX, work / "close.npy")]


def train_all(work: Path, out: Path, keep_autoencoder: bool = False) -> dict[str, float]:
    """Train all networks and write the pipeline folder.

    Args:
        work: checkpoints and rendered training sets; finished stages are not trained again.
        out: pipeline folder to write.
        keep_autoencoder: load the autoencoder from ``out`` instead of training it.

    Returns:
        Quality measures, as written to ``report.json``.
    """
    work.mkdir(parents=True, exist_ok=True)
    log = work / LOG
    scenes = sample_scenes(TRAIN_COUNT, TRAIN_SEED) + close_ups(CLOSE_UP_COUNT, CLOSE_SEED)
    sets = training_sets(work)
    if keep_autoencoder:
        vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32, local_files_only=True).eval()
        vae.register_to_config(_name_or_path="")  # keeps the local path out of the saved config
        if not log.exists():
            shutil.copy(out / LOG, log)
    else:
        vae = train_autoencoder(sets, work, log)
    report: dict[str, float] = {}
    for name in ("structure", "detail"):
        report |= train_scoring_network(name, work, out)
    tokenizer = build_tokenizer(work / "tokenizer")
    text_encoder, unet = train_diffusion(training_latents(vae, sets), scenes, tokenizer, work, log)

    pipe = assemble(vae, text_encoder, tokenizer, unet)
    pipe.to(dtype=torch.float16).save_pretrained(out)  # stored in half precision, loaded in any
    # transformers loads in the dtype of the config, diffusers in float32; with "float32" a plain load is consistent.
    config = out / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    report |= train_scoring_network("counting", work, out)
    pipe.to(dtype=torch.float32)
    wanted, images = sample_base(pipe, SAMPLES, SAMPLE_SEED)
    report |= measure_autoencoder(vae, work)
    found = SceneFeatures(out).predict(images)
    for factor in ("object", "colour", "background"):
        hits = [value == getattr(scene, factor) for value, scene in zip(found[factor], wanted, strict=True)]
        report[f"samples_{factor}_accuracy"] = round(sum(hits) / len(hits), 4)
    write_sheet(images, out / "samples.png")
    shutil.copy(log, out / LOG)
    write_atomically(out / REPORT, json.dumps(report, indent=2) + "\n")
    return report


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.scenes.train",
        description="Train the scenes pipeline: about six and a half hours on two cores.",
    )
    add = parser.add_argument
    add("--work", type=Path, default=Path("runs/train-scenes"), help="checkpoints and rendered training sets")
    add("--out", type=Path, default=WEIGHTS, help="pipeline folder to write")
    add("--keep-autoencoder", action="store_true", help="load the autoencoder from --out and train the rest")
    add("--only", choices=SCORING, help="train this network alone and write its file into --out")
    arguments = parser.parse_args(argv)
    if arguments.only:
        arguments.work.mkdir(parents=True, exist_ok=True)
        measures = train_scoring_network(arguments.only, arguments.work, arguments.out)
        add_to_report(arguments.out, measures)
    else:
        measures = train_all(arguments.work, arguments.out, arguments.keep_autoencoder)
    print(json.dumps(measures, indent=2))


if __name__ == "__main__":
    command(main)
