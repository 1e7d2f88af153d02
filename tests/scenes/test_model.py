"""The committed scenes pipeline: a standard Stable Diffusion folder, as good as its report says."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from experiments.scenes import WEIGHTS
from experiments.scenes.model import BASE_PX, LATENT_CHANNELS, build_autoencoder, build_tokenizer, build_unet
from experiments.scenes.renderer.scene import render_all, sample_scenes
from experiments.scenes.scene_features import SceneFeatures
from experiments.scenes.training.autoencoder import encode, psnr
from experiments.scenes.training.sampled import sample_base
from scalecrafter.convolutions import find_convolutions
from scalecrafter.pipeline import model_family, training_size
from scalecrafter.settings import Settings

UNSEEN = 90210  # a seed of `sample_scenes` that nothing else uses


@pytest.fixture(scope="module")
def scenes_pipe():
    return StableDiffusionPipeline.from_pretrained(WEIGHTS, local_files_only=True)


def test_pipeline_loads_with_plain_diffusers(scenes_pipe):
    assert training_size(scenes_pipe) == (BASE_PX, BASE_PX) == (128, 128)
    assert model_family(scenes_pipe.unet) is None  # no settings are shipped for it
    assert scenes_pipe.scheduler.config.beta_schedule == "scaled_linear"
    assert scenes_pipe.scheduler.config.prediction_type == "v_prediction"


def test_plainly_loaded_pipeline_has_one_precision(scenes_pipe):
    """diffusers and transformers have different defaults; mixed precisions would fail while sampling."""
    assert {part.dtype for part in (scenes_pipe.unet, scenes_pipe.vae, scenes_pipe.text_encoder)} == {torch.float32}
    assert scenes_pipe("a red car on a beach", num_inference_steps=1).images[0].size == (128, 128)


def test_stable_diffusion_settings_apply(scenes_pipe):
    assert len(find_convolutions(scenes_pipe.unet, Settings.load("sd15_x4").dilation)) == 39


def test_weights_are_small_half_precision_safetensors():
    files = list(WEIGHTS.rglob("*.safetensors"))
    assert len(files) == 6  # U-Net, autoencoder, text encoder, three networks of scores
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
            for caption in (scene.caption, replace(scene, zoom=2).caption):
                tokens = tokenizer(caption).input_ids
                assert len(tokens) == len(caption.split()) + 2
                assert len(tokens) <= tokenizer.model_max_length


def test_tokenizer_is_kept_once_trained(tmp_path):
    first = build_tokenizer(tmp_path).get_vocab()
    assert build_tokenizer(tmp_path).get_vocab() == first


def test_only_inner_levels_have_attention():
    names = [name for name, _ in build_unet().named_modules() if name.endswith("attn2")]
    assert {name.split(".attentions")[0] for name in names} == {"down_blocks.2", "mid_block", "up_blocks.1"}


def test_networks_are_built_as_they_are_stored(scenes_pipe):
    """Latents have a quarter of the image's sides."""
    assert {k: v.shape for k, v in build_unet().state_dict().items()} == {
        k: v.shape for k, v in scenes_pipe.unet.state_dict().items()
    }
    assert {k: v.shape for k, v in build_autoencoder().state_dict().items()} == {
        k: v.shape for k, v in scenes_pipe.vae.state_dict().items()
    }
    assert encode(scenes_pipe.vae, np.zeros((1, 128, 192, 3), np.uint8)).shape == (1, LATENT_CHANNELS, 32, 48)
    assert scenes_pipe.unet.config.sample_size == 32


@pytest.mark.parametrize(("side", "least"), [(128, 29), (512, 32)])
def test_autoencoder_reconstructs_unseen_scenes(scenes_pipe, side, least):
    """At the base size and at 16 times its area, measured here and in the report, in dB."""
    images = render_all(sample_scenes(6 if side == BASE_PX else 1, UNSEEN), side, side)
    assert psnr(scenes_pipe.vae, images, batch=8) >= least
    name = "autoencoder_psnr_db" + ("" if side == BASE_PX else f"_{side}")
    assert json.loads((WEIGHTS / "report.json").read_text())[name] >= least


@pytest.mark.slow
def test_base_samples_match_captions(scenes_pipe):
    """Object and colour are recognised in at least 95% of 256 base-size samples."""
    scenes, images = sample_base(scenes_pipe, 256, UNSEEN)
    found = SceneFeatures().predict(images)
    for factor in ("object", "colour"):
        assert np.mean([f == getattr(s, factor) for f, s in zip(found[factor], scenes, strict=True)]) >= 0.95
