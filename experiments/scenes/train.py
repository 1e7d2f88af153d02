"""`python -m experiments.scenes.train`: train all networks of the embedded world and write the pipeline folder.

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
from safetensors.torch import save

from eval.files import write_atomically
from experiments.scenes import WEIGHTS
from experiments.scenes.model import BASE_PX, assemble, build_tokenizer
from experiments.scenes.renderer.scene import Scene, sample_scenes
from experiments.scenes.scene_features import CLASSIFIER_FILE, SceneFeatures
from experiments.scenes.training.autoencoder import encode, measure_autoencoder, train_autoencoder
from experiments.scenes.training.classifier import measure_classifier, train_classifier
from experiments.scenes.training.data import TRAIN_SEED, rendered
from experiments.scenes.training.diffusion import train_diffusion
from experiments.setup.command_line import command

TRAIN_COUNT = 24_576
LOG = "training_log.jsonl"
SAMPLES, SAMPLE_SEED, SAMPLE_STEPS, GUIDANCE_SCALE = 256, 505, 25, 5.0


def sample_base(pipe: StableDiffusionPipeline, n: int, seed: int) -> tuple[list[Scene], NDArray[np.uint8]]:
    """Generate ``n`` base-size images (N, 64, 64, 3) uint8 for balanced captions, with one generator per image."""
    scenes = sample_scenes(n, seed)
    pipe.set_progress_bar_config(disable=True)
    batches = []
    for start in range(0, n, 32):
        part = scenes[start : start + 32]
        generators = [torch.Generator().manual_seed(s.seed) for s in part]
        options = {"num_inference_steps": SAMPLE_STEPS, "guidance_scale": GUIDANCE_SCALE, "output_type": "np"}
        images = pipe([s.caption for s in part], generator=generators, height=BASE_PX, width=BASE_PX, **options).images
        batches.append((images * 255).round().astype(np.uint8))
    return scenes, np.concatenate(batches)


def write_sheet(images: NDArray[np.uint8], path: Path, columns: int = 12, zoom: int = 2) -> None:
    """Save the first 4 * ``columns`` of ``images`` (N, H, W, 3) as one PNG, enlarged by ``zoom``."""
    rows = [np.concatenate(list(images[r * columns : (r + 1) * columns]), axis=1) for r in range(4)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.LANCZOS).save(path)


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
    if keep_autoencoder:
        vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32, local_files_only=True).eval()
        vae.register_to_config(_name_or_path="")  # keeps the local path out of the saved config
        if not log.exists():
            shutil.copy(out / LOG, log)
    else:
        vae = train_autoencoder(work, log, TRAIN_COUNT)
    classifier = train_classifier(work, log, TRAIN_COUNT)
    scenes = sample_scenes(TRAIN_COUNT, TRAIN_SEED)
    latents = encode(vae, rendered(scenes, BASE_PX, work / "train.npy")) * vae.config.scaling_factor
    tokenizer = build_tokenizer(work / "tokenizer")
    text_encoder, unet = train_diffusion(latents, [s.caption for s in scenes], tokenizer, work, log)

    pipe = assemble(vae, text_encoder, tokenizer, unet)
    pipe.to(dtype=torch.float16).save_pretrained(out)  # stored in half precision, loaded in any
    # transformers loads in the dtype of the config, diffusers in float32; with "float32" a plain load is consistent.
    config = out / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    pipe.to(dtype=torch.float32)
    wanted, images = sample_base(pipe, SAMPLES, SAMPLE_SEED)
    report = measure_autoencoder(vae, work) | measure_classifier(classifier, work)
    state = {name: value.half().contiguous() for name, value in classifier.state_dict().items()}
    write_atomically(out / CLASSIFIER_FILE, save(state))
    found = SceneFeatures(out).predict(images)
    for factor in ("object", "colour", "background"):
        hits = [value == getattr(scene, factor) for value, scene in zip(found[factor], wanted, strict=True)]
        report[f"samples_{factor}_accuracy"] = round(sum(hits) / len(hits), 4)
    write_sheet(images, out / "samples.png")
    shutil.copy(log, out / LOG)
    write_atomically(out / "report.json", json.dumps(report, indent=2) + "\n")
    return report


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.scenes.train",
        description="Train the scenes pipeline: about two hours on two cores.",
    )
    add = parser.add_argument
    add("--work", type=Path, default=Path("runs/train-scenes"), help="checkpoints and rendered training sets")
    add("--out", type=Path, default=WEIGHTS, help="pipeline folder to write")
    add("--keep-autoencoder", action="store_true", help="load the autoencoder from --out and train the rest")
    arguments = parser.parse_args(argv)
    print(json.dumps(train_all(arguments.work, arguments.out, arguments.keep_autoencoder), indent=2))


if __name__ == "__main__":
    command(main)
