"""The committed scenes pipeline: a standard Stable Diffusion folder, as good as its report says."""

import json
import re

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from scipy.stats import spearmanr

from experiments.scenes import WEIGHTS
from experiments.scenes.model import build_tokenizer, build_unet
from experiments.scenes.renderer.scene import render_all, sample_scenes
from experiments.scenes.scene_features import SceneDistance, SceneFeatures
from experiments.scenes.train import sample_base
from experiments.scenes.training.autoencoder import psnr, to_tensor
from experiments.scenes.training.data import counting_scenes
from scalecrafter.convolutions import find_convolutions
from scalecrafter.pipeline import model_family, training_size
from scalecrafter.settings import Settings

UNSEEN = 90210  # a seed of `sample_scenes` that nothing else uses


@pytest.fixture(scope="module")
def scenes_pipe():
    return StableDiffusionPipeline.from_pretrained(WEIGHTS, local_files_only=True)


def test_pipeline_loads_with_plain_diffusers(scenes_pipe):
    assert training_size(scenes_pipe) == (64, 64)
    assert model_family(scenes_pipe.unet) is None  # no settings are shipped for it
    assert scenes_pipe.scheduler.config.beta_schedule == "scaled_linear"
    assert scenes_pipe.scheduler.config.prediction_type == "epsilon"


def test_plainly_loaded_pipeline_has_one_precision(scenes_pipe):
    """diffusers and transformers have different defaults; mixed precisions would fail while sampling."""
    assert {part.dtype for part in (scenes_pipe.unet, scenes_pipe.vae, scenes_pipe.text_encoder)} == {torch.float32}
    assert scenes_pipe("a red car on a beach", num_inference_steps=1).images[0].size == (64, 64)


def test_stable_diffusion_settings_apply(scenes_pipe):
    assert len(find_convolutions(scenes_pipe.unet, Settings.load("sd15_x4").dilation)) == 39


def test_weights_are_small_half_precision_safetensors():
    files = list(WEIGHTS.rglob("*.safetensors"))
    assert len(files) == 4  # U-Net, autoencoder, text encoder, classifier
    assert sum(path.stat().st_size for path in files) < 24e6
    for path in files:
        with safe_open(path, framework="pt") as tensors:
            assert {tensors.get_tensor(key).dtype for key in tensors.keys()} <= {torch.float16, torch.int64}  # noqa: SIM118
    assert not [path for path in WEIGHTS.rglob("*") if path.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"}]


def test_configs_contain_no_local_paths():
    for path in WEIGHTS.rglob("*.json"):
        assert not re.search(r'"_?name_or_path": "[^"]', path.read_text()), path


def test_each_caption_word_is_one_token(tmp_path, scenes_pipe):
    for tokenizer in (build_tokenizer(tmp_path), scenes_pipe.tokenizer):
        for scene in sample_scenes(144, UNSEEN):
            tokens = tokenizer(scene.caption).input_ids
            assert len(tokens) == len(scene.caption.split()) + 2
            assert len(tokens) <= tokenizer.model_max_length


def test_tokenizer_is_kept_once_trained(tmp_path):
    first = build_tokenizer(tmp_path).get_vocab()
    assert build_tokenizer(tmp_path).get_vocab() == first


def test_only_inner_levels_have_attention():
    names = [name for name, _ in build_unet().named_modules() if name.endswith("attn2")]
    assert {name.split(".attentions")[0] for name in names} == {"down_blocks.2", "mid_block", "up_blocks.1"}


def test_autoencoder_reconstructs_unseen_scenes(scenes_pipe):
    """At least 30 dB, measured here and in the report."""
    images = render_all(sample_scenes(96, UNSEEN), 64, 64)
    assert psnr(scenes_pipe.vae, images) >= 30
    assert json.loads((WEIGHTS / "report.json").read_text())["autoencoder_psnr_db"] >= 30


@pytest.mark.parametrize("side", [64, 128, 256])
def test_classifier_recognises_unseen_scenes(side):
    scenes = sample_scenes(96, UNSEEN + side)
    found = SceneFeatures().predict(render_all(scenes, side, side))
    for factor in ("object", "colour", "background"):
        assert np.mean([f == getattr(s, factor) for f, s in zip(found[factor], scenes, strict=True)]) >= 0.98


@pytest.mark.parametrize("side", [64, 256])
def test_classifier_counts_copies(side):
    """The mean error is at most 0.3 for up to four copies, and the rank correlation over 1 to 16 at least 0.95."""
    scenes = counting_scenes(96, UNSEEN)
    truth = np.array([scene.copies for scene in scenes])
    found = SceneFeatures().copies(render_all(scenes, side, side))
    few = truth <= 4
    assert np.abs(found - truth)[few].mean() <= 0.3
    assert spearmanr(found, truth).statistic >= 0.95


def test_features_are_independent_of_batch():
    extractor, images = SceneFeatures(), render_all(sample_scenes(5, UNSEEN), 128, 128)
    together = extractor(images)
    assert together.shape == (5, extractor.dim)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.concatenate([extractor(image[None]) for image in images]), together, atol=1e-4)


def test_missing_or_damaged_classifier_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"scenes classifier not found .*git"):
        SceneFeatures(tmp_path)
    (tmp_path / "classifier.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"scenes classifier .* is damaged.*git"):
        SceneFeatures(tmp_path)


def test_distance_is_zero_for_equal_images_and_differentiable():
    images = to_tensor(render_all(sample_scenes(3, UNSEEN), 64, 64))
    others = images.flip(0).requires_grad_()
    distances = SceneDistance()(images, others)
    assert distances.shape == (3,)
    assert distances[1] == 0  # the middle image is compared with itself
    assert (distances[[0, 2]] > 0.1).all()
    distances.sum().backward()
    assert others.grad.abs().sum() > 0


@pytest.mark.slow
def test_base_samples_match_captions(scenes_pipe):
    """Object and colour are recognised in at least 95% of 256 base-size samples with 25 steps."""
    scenes, images = sample_base(scenes_pipe, 256, UNSEEN)
    found = SceneFeatures().predict(images)
    for factor in ("object", "colour"):
        assert np.mean([f == getattr(s, factor) for f, s in zip(found[factor], scenes, strict=True)]) >= 0.95
