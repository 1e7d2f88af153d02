"""Upscaling: the base-size picture of direct inference, enlarged."""

import numpy as np
import pytest
from PIL import Image

from baselines.direct import Direct
from baselines.method import Request, Sampler
from baselines.upscale import Upscale, UpscaleSD, base_size
from tests.tiny import tiny_upscaler


def request(height, width):
    return Request(["a", "b"], [1, 2], height, width, Sampler(2, 4.0))


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 64), (32, 32)), ((128, 128), (32, 32)), ((64, 128), (32, 32)), ((64, 256), (32, 64))]
)
def test_the_base_has_about_the_training_area_and_the_aspect(pipe, size, expected):
    assert base_size(pipe, *size) == expected


def test_it_is_direct_inference_enlarged(pipe):
    small = Direct().generate(pipe, request(32, 32))
    large = Upscale().generate(pipe, request(64, 96))
    assert large.shape == (2, 64, 96, 3)
    expected = Image.fromarray(small[1]).resize((96, 64), Image.Resampling.LANCZOS)
    assert np.array_equal(large[1], np.asarray(expected))


@pytest.fixture
def upscaler(tmp_path):
    """Folder of a tiny upscaler."""
    tiny_upscaler(tmp_path / "tokenizer").save_pretrained(tmp_path / "upscaler")
    return str(tmp_path / "upscaler")


def test_the_sd_upscaler(pipe, upscaler):
    method = UpscaleSD(model=upscaler, steps=2)
    assert len(method.describe(pipe, 64, 64)["upscaler_sha256"]) == 64
    images = method.generate(pipe, request(64, 96))
    assert images.shape == (2, 64, 96, 3)
    assert not np.array_equal(images, Upscale().generate(pipe, request(64, 96)))
    alone = method.generate(pipe, Request(["b"], [2], 64, 96, Sampler(2, 4.0)))
    assert np.abs(alone.astype(int) - images[1:]).max() <= 2


@pytest.mark.parametrize("change", [{"steps": 3}, {"guidance_scale": 2.0}, {"noise_level": 300}])
def test_every_option_changes_the_picture(pipe, upscaler, change):
    base = {"model": upscaler, "steps": 2}
    images = [UpscaleSD(**options).generate(pipe, request(64, 64)) for options in (base, base | change)]
    assert not np.array_equal(*images)


def test_a_missing_upscaler_is_named(pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="no x4 upscaler at .*nowhere"):
        UpscaleSD(model=str(tmp_path / "nowhere")).describe(pipe, 64, 64)


def test_a_size_that_does_not_fit_is_refused(pipe):
    with pytest.raises(ValueError, match="divisible by 32"):
        Upscale().describe(pipe, 60, 64)
