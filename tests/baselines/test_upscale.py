"""Upscaling: direct inference at the base size, enlarged."""

from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionUpscalePipeline
from PIL import Image

from baselines.direct import Direct
from baselines.upscale import Upscale, UpscaleSD, base_size
from tests.tiny import generate, tiny_upscaler


def test_base_has_about_the_training_area_and_the_aspect_ratio(pipe):
    expected = {(64, 64): (32, 32), (128, 128): (32, 32), (64, 128): (32, 32), (64, 256): (32, 64)}
    assert {size: base_size(pipe, *size) for size in expected} == expected


def test_image_is_direct_inference_enlarged(pipe):
    small = generate(Direct(), pipe, size=(32, 32))
    large = generate(Upscale(), pipe, size=(64, 96))
    assert large.shape == (2, 64, 96, 3)
    expected = Image.fromarray(small[1]).resize((96, 64), Image.Resampling.LANCZOS)
    assert np.array_equal(large[1], np.asarray(expected))


@pytest.fixture
def upscaler(tmp_path):
    """Folder of a tiny upscaler."""
    tiny_upscaler(tmp_path / "tokenizer").save_pretrained(tmp_path / "upscaler")
    return str(tmp_path / "upscaler")


def test_sd_upscaler_and_its_options_change_the_image(pipe, upscaler):
    base = {"model": upscaler, "steps": 2}
    images = generate(UpscaleSD(**base), pipe, size=(64, 96))
    assert images.shape == (2, 64, 96, 3)
    assert not np.array_equal(images, generate(Upscale(), pipe, size=(64, 96)))
    alone = generate(UpscaleSD(**base), pipe, [2], size=(64, 96))
    assert np.abs(alone[0].astype(int) - images[1]).max() <= 1
    for change in ({"steps": 3}, {"guidance_scale": 2.0}, {"noise_level": 300}):
        changed = generate(UpscaleSD(**(base | change)), pipe, [2], size=(64, 96))
        assert not np.array_equal(changed, alone), change


def test_description_locates_the_upscaler_without_loading_it(pipe, upscaler, monkeypatch):
    monkeypatch.setattr(StableDiffusionUpscalePipeline, "from_pretrained", None)
    described = UpscaleSD(model=upscaler).describe(pipe, 64, 64)
    assert described == {
        "base_size": [32, 32],
        "upscaler_sha256": Path(upscaler),
        "steps": 50,
        "guidance_scale": 9.0,
        "noise_level": 20,
    }


def test_missing_upscaler_raises(pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "empty"):
        with pytest.raises(ValueError, match=f"no x4 upscaler at .*{name}"):
            UpscaleSD(model=str(tmp_path / name)).describe(pipe, 64, 64)


def test_invalid_size_raises(pipe, upscaler):
    for method in (Upscale(), UpscaleSD(model=upscaler)):
        with pytest.raises(ValueError, match="divisible by 4"):
            method.describe(pipe, 62, 64)
