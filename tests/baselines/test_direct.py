"""Direct inference equals the stock pipeline, and the method without effect equals direct inference."""

import numpy as np
import pytest
import torch

from baselines.direct import Direct
from baselines.method import Request, Sampler
from baselines.scalecrafter import ScaleCrafter
from scalecrafter import Settings
from scalecrafter.settings import expand

REQUEST = Request(["a b", "c"], [3, 4], 64, 64, Sampler(steps=3, guidance_scale=4.0, eta=0.5))
TABLE = expand({"down_blocks.1+s": 2, "mid_block": 2})


def test_images_equal_the_stock_pipelines(pipe):
    generators = [torch.Generator().manual_seed(seed) for seed in REQUEST.seeds]
    images = pipe(
        list(REQUEST.prompts),
        height=64,
        width=64,
        num_inference_steps=3,
        guidance_scale=4.0,
        eta=0.5,
        generator=generators,
    ).images
    assert np.array_equal(Direct().generate(pipe, REQUEST), np.stack([np.asarray(image) for image in images]))


@pytest.mark.parametrize(
    "settings",
    [
        Settings(dict.fromkeys(TABLE, 1), tau=50),
        Settings(dict.fromkeys(TABLE, 1), tau=50, progressive=True),
        Settings(TABLE, tau=0),
        Settings({}, tau=50),
    ],
    ids=["d=1", "d=1 progressive", "tau=0", "no layers"],
)
def test_method_without_effect_gives_identical_images(pipe, settings):
    assert np.array_equal(ScaleCrafter(settings=settings).generate(pipe, REQUEST), Direct().generate(pipe, REQUEST))


def test_sampler_noise_comes_from_the_image_generator(pipe):
    torch.manual_seed(1)
    first = Direct().generate(pipe, REQUEST)
    torch.manual_seed(2)
    assert np.array_equal(first, Direct().generate(pipe, REQUEST))
