"""The committed scenes pipeline: it is a genuine Stable Diffusion folder, and as good as the report beside it says."""

import json
import re

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from scipy.stats import spearmanr

from experiments.scenes import WEIGHTS
from experiments.scenes.autoencoder import psnr
from experiments.scenes.data import counting_scenes
from experiments.scenes.features import SceneFeatures
from experiments.scenes.model import build_tokenizer, build_unet
from experiments.scenes.render import render_all, sample_scenes
from experiments.scenes.train import sample_base
from scalecrafter.convolutions import find_convolutions
from scalecrafter.pipeline import model_family, training_size
from scalecrafter.settings import load_settings

FRESH = 90210  # no other stream of scenes has this seed


@pytest.fixture(scope="module")
def scenes_pipe():
    return StableDiffusionPipeline.from_pretrained(WEIGHTS, local_files_only=True)


def test_it_loads_with_plain_diffusers_and_is_recognised(scenes_pipe):
    assert training_size(scenes_pipe) == (64, 64)
    assert model_family(scenes_pipe.unet) == "scenes"
    assert scenes_pipe.scheduler.config.beta_schedule == "scaled_linear"
    assert scenes_pipe.scheduler.config.prediction_type == "epsilon"


def test_a_plainly_loaded_pipeline_draws(scenes_pipe):
    """All its parts have one precision, whatever the libraries load by default."""
    assert {part.dtype for part in (scenes_pipe.unet, scenes_pipe.vae, scenes_pipe.text_encoder)} == {torch.float32}
    assert scenes_pipe("a red car on a beach", num_inference_steps=1).images[0].size == (64, 64)


def test_the_layer_tables_of_stable_diffusion_apply(scenes_pipe):
    assert len(find_convolutions(scenes_pipe.unet, load_settings("sd15_x4").dilation)) == 39


def test_weights_are_safetensors_in_half_precision_and_small():
    files = list(WEIGHTS.rglob("*.safetensors"))
    assert len(files) == 4  # U-Net, autoencoder, text encoder, classifier
    assert sum(path.stat().st_size for path in files) < 24e6
    for path in files:
        with safe_open(path, framework="pt") as tensors:
            assert {tensors.get_tensor(key).dtype for key in tensors.keys()} <= {torch.float16, torch.int64}  # noqa: SIM118
    assert not [path for path in WEIGHTS.rglob("*") if path.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"}]


def test_nothing_names_the_machine_it_was_trained_on():
    for path in WEIGHTS.rglob("*.json"):
        assert not re.search(r'"_?name_or_path": "[^"]', path.read_text()), path


def test_every_word_of_a_caption_is_one_token(tmp_path, scenes_pipe):
    for tokenizer in (build_tokenizer(tmp_path), scenes_pipe.tokenizer):
        for scene in sample_scenes(144, FRESH):
            tokens = tokenizer(scene.caption).input_ids
            assert len(tokens) == len(scene.caption.split()) + 2
            assert len(tokens) <= tokenizer.model_max_length


def test_a_resumed_training_keeps_its_tokens(tmp_path):
    first = build_tokenizer(tmp_path).get_vocab()
    assert build_tokenizer(tmp_path).get_vocab() == first


def test_the_unet_has_the_attention_free_outer_levels():
    names = [name for name, _ in build_unet().named_modules() if name.endswith("attn2")]
    assert {name.split(".attentions")[0] for name in names} == {"down_blocks.2", "mid_block", "up_blocks.1"}


def test_the_autoencoder_restores_unseen_scenes(scenes_pipe):
    """At least 30 dB on held-out scenes, as on the report."""
    pictures = render_all(sample_scenes(96, FRESH), 64, 64)
    assert psnr(scenes_pipe.vae, pictures) >= 30
    assert json.loads((WEIGHTS / "report.json").read_text())["autoencoder_psnr_db"] >= 30


@pytest.mark.parametrize("side", [64, 128, 256])
def test_the_classifier_recognises_unseen_scenes_at_every_size(side):
    scenes = sample_scenes(96, FRESH + side)
    found = SceneFeatures().predict(render_all(scenes, side, side))
    for factor in ("object", "colour", "background"):
        assert np.mean([f == getattr(s, factor) for f, s in zip(found[factor], scenes, strict=True)]) >= 0.98


@pytest.mark.parametrize("side", [64, 256])
def test_copies_are_counted(side):
    """On rendered scenes with 1 to 16 copies: off by 0.3 at most for up to four, and in the right order over all."""
    scenes = counting_scenes(160, FRESH)
    truth = np.array([scene.copies for scene in scenes])
    found = SceneFeatures().copies(render_all(scenes, side, side))
    few = truth <= 4
    assert np.abs(found - truth)[few].mean() <= 0.3
    assert spearmanr(found, truth).statistic >= 0.95


def test_features_do_not_depend_on_the_batch():
    extractor, pictures = SceneFeatures(), render_all(sample_scenes(5, FRESH), 128, 128)
    together = extractor(pictures)
    assert together.shape == (5, extractor.dim)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.concatenate([extractor(p[None]) for p in pictures]), together, atol=1e-4)


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_a_missing_or_damaged_classifier_is_named(tmp_path, content):
    if content:
        (tmp_path / "classifier.safetensors").write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match="scenes classifier .*git"):
        SceneFeatures(tmp_path)


@pytest.mark.slow
def test_base_samples_show_what_was_asked_for(scenes_pipe):
    """The quality floor: object and colour found in 95% of 256 samples at the base size, 25 steps."""
    scenes, images = sample_base(scenes_pipe, 256, FRESH)
    found = SceneFeatures().predict(images)
    for factor in ("object", "colour"):
        assert np.mean([f == getattr(s, factor) for f, s in zip(found[factor], scenes, strict=True)]) >= 0.95
