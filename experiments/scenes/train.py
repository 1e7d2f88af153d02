"""`python -m experiments.scenes.train`: train autoencoder, classifier and diffusion model, and write the pipeline
folder.

Everything is seeded by step, logged to ``training_log.jsonl`` beside the weights, and checkpointed under ``--work``:
an interrupted training goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file

from experiments.scenes import WEIGHTS
from experiments.scenes.autoencoder import encode, measure_autoencoder, train_autoencoder
from experiments.scenes.classifier import measure_classifier, train_classifier
from experiments.scenes.data import TRAIN_SEED, rendered
from experiments.scenes.diffusion import train_diffusion
from experiments.scenes.features import FILE, SceneFeatures
from experiments.scenes.model import BASE_PX, assemble, build_tokenizer
from experiments.scenes.render import sample_scenes

TRAIN_COUNT = 24_576
LOG = "training_log.jsonl"
SAMPLES, SAMPLE_SEED, SAMPLE_STEPS, GUIDANCE_SCALE = 256, 505, 25, 5.0


def sample_base(pipe, n: int, seed: int) -> tuple[list, np.ndarray]:
    """``n`` base-size pictures (N, 64, 64, 3) uint8 for balanced captions, one generator per picture."""
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


def write_sheet(images: np.ndarray, path: Path, columns: int = 12, zoom: int = 2) -> None:
    """The first pictures of (N, H, W, 3) ``images`` as one PNG of 4 rows."""
    rows = [np.concatenate(list(images[r * columns : (r + 1) * columns]), axis=1) for r in range(4)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.LANCZOS).save(path)


def train_all(work: Path, out: Path, keep_autoencoder: bool = False) -> dict[str, float]:
    """Train what is not trained yet and write the pipeline folder ``out``; returns the measured quality."""
    work.mkdir(parents=True, exist_ok=True)
    log = work / LOG
    if keep_autoencoder:
        vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32, local_files_only=True).eval()
        vae.register_to_config(_name_or_path="")  # or the path on this machine would be saved with it
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
    pipe.to(dtype=torch.float16).save_pretrained(out)  # half on disk; loaded in the precision that the user asks for
    # transformers loads what the configuration names, diffusers float32: a plain load has to give one precision.
    config = out / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    pipe.to(dtype=torch.float32)
    wanted, images = sample_base(pipe, SAMPLES, SAMPLE_SEED)
    report = measure_autoencoder(vae, work) | measure_classifier(classifier, work)
    save_file({k: v.half().contiguous() for k, v in classifier.state_dict().items()}, out / FILE)
    found = SceneFeatures(out).predict(images)
    for factor in ("object", "colour", "background"):
        hits = [seen == getattr(scene, factor) for seen, scene in zip(found[factor], wanted, strict=True)]
        report[f"samples_{factor}_accuracy"] = round(sum(hits) / len(hits), 4)
    write_sheet(images, out / "samples.png")
    shutil.copy(log, out / LOG)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the scenes pipeline: about two hours on two cores.")
    add = parser.add_argument
    add("--work", type=Path, default=Path("runs/train-scenes"), help="checkpoints and rendered training sets")
    add("--out", type=Path, default=WEIGHTS, help="pipeline folder to write")
    add("--keep-autoencoder", action="store_true", help="use the autoencoder that is in --out, train the rest")
    arguments = parser.parse_args()
    print(json.dumps(train_all(arguments.work, arguments.out, arguments.keep_autoencoder), indent=2))


if __name__ == "__main__":
    main()
