"""The model card states what the files of the model, its training and its report say."""

import itertools
import json
import re

import pytest
from safetensors import safe_open

from experiments.scenes import WEIGHTS
from experiments.scenes.model import BASE_PX, LATENT_CHANNELS, MAX_TOKENS, VAE_FACTOR
from experiments.scenes.renderer.scene import BACKGROUNDS, COLOURS, OBJECTS
from experiments.scenes.train import CLOSE_UP_COUNT, TRAIN_COUNT
from experiments.scenes.training.autoencoder import DECODER, NARROW, SCHEDULE
from experiments.scenes.training.data import CLOSE_SEED, TRAIN_SEED, VALIDATION_SEED
from experiments.scenes.training.diffusion import STAGES
from tests.docs.pages import text_of

CARD = text_of("scenes_model_card.md")
FLAT = " ".join(CARD.split())


def rows(heading):
    """Cells of the table below a heading."""
    section = CARD.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize(
    ("part", "file"),
    [
        ("U-Net", "unet/diffusion_pytorch_model.safetensors"),
        ("autoencoder", "vae/diffusion_pytorch_model.safetensors"),
        ("text encoder", "text_encoder/model.safetensors"),
    ],
)
def test_parameters(part, file):
    with safe_open(WEIGHTS / file, framework="np") as tensors:
        count = sum(tensors.get_tensor(key).size for key in tensors.keys())  # noqa: SIM118
    stated = {row[0]: row[2] for row in rows("What it is")}
    assert stated[part] == f"{count:,}"


def test_data():
    assert f"{BASE_PX}x{BASE_PX} pixels" in FLAT
    assert f"a factor of {VAE_FACTOR} and {LATENT_CHANNELS} latent channels" in FLAT
    vocabulary = json.loads((WEIGHTS / "text_encoder/config.json").read_text())["vocab_size"]
    assert f"vocabulary of {vocabulary} tokens, {MAX_TOKENS} at most" in FLAT
    for kind, values in (("objects", OBJECTS), ("colours", COLOURS), ("backgrounds", BACKGROUNDS)):
        assert f"{len(values)} {kind} ({', '.join(values)})" in FLAT
    assert f"{TRAIN_COUNT:,} scenes (seed {TRAIN_SEED})" in FLAT
    assert f"{CLOSE_UP_COUNT:,} close-ups of others (seed {CLOSE_SEED})" in FLAT
    assert f"Held-out scenes (seed {VALIDATION_SEED})" in FLAT


def test_stages():
    entries = [json.loads(line) for line in (WEIGHTS / "training_log.jsonl").read_text().splitlines()]
    seconds = dict.fromkeys((entry["stage"] for entry in entries), 0.0)
    for entry, after in itertools.pairwise([*entries, {"stage": None}]):
        # The clock starts again with a stage, and where an interrupted one was resumed.
        if entry["stage"] != after["stage"] or after["seconds"] < entry["seconds"]:
            seconds[entry["stage"]] += entry["seconds"]
    schedules = [NARROW, SCHEDULE, *DECODER, *(stage.schedule for stage in STAGES)]
    stated = [[re.match(r"`(.*?)`", row[0])[1], *row[1:]] for row in rows("Training")]
    assert stated == [
        [each.name, str(each.steps), str(each.batch), str(each.learning_rate), f"{seconds[each.name]:.0f}"]
        for each in schedules
    ]


def test_measures():
    report = json.loads((WEIGHTS / "report.json").read_text())
    assert [row[1] for row in rows("How good it is")] == [
        f"{report['autoencoder_psnr_db']} dB",
        f"{report['autoencoder_psnr_db_512']} dB",
        *(f"{100 * report[f'samples_{name}_accuracy']:.3g}%" for name in ("object", "colour", "background")),
    ]
