"""The recipe: each option acts in every method as it does in the stock pipeline, and leaves the pipeline as it was."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from diffusers import EulerDiscreteScheduler

from baselines.cascade.sdedit import SDEdit
from baselines.direct import Direct
from baselines.method import Request, Sampler
from baselines.one_pass.fouriscale import FouriScale
from baselines.patches.demofusion import DemoFusion
from baselines.sampler import sampled_as
from scalecrafter.freeu import FreeU
from tests.test_methods import METHODS, THREE_STEPS, build
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline

PLAIN = Sampler(steps=2, guidance_scale=4.0)
FREEU = FreeU(1.5, 1.6, 0.5, 0.2)
RECIPES = {
    "scheduler": replace(PLAIN, scheduler="euler"),
    "negative prompt": replace(PLAIN, negative_prompt="blurry"),
    "FreeU": replace(PLAIN, freeu=FREEU),
}


def sample(method, pipe, sampler, size=(64, 64), prompts=("a b",)):
    return method.generate(pipe, Request(prompts, list(range(len(prompts))), *size, sampler))


def stock(pipe, size=(64, 64), **options):
    """The pipeline's own call, with the generator of seed 0, in two steps."""
    import torch

    arguments = {"num_inference_steps": 2, "guidance_scale": 4.0, "output_type": "np"} | options
    generator = torch.Generator().manual_seed(0)
    images = pipe("a b", height=size[0], width=size[1], generator=generator, **arguments).images
    return np.rint(images * 255).astype(np.uint8)


# They encode prompts, combine predictions or sample in a way of their own; the others inherit it from these.
BY_DEFAULT = {"direct", "upscale", "fouriscale", "multidiffusion", "syncdiffusion", "sdedit", "frecas"}
BY_DEFAULT |= {"demofusion", "accdiffusion"}


@pytest.mark.parametrize("name", [pytest.param(m, marks=() if m in BY_DEFAULT else pytest.mark.slow) for m in METHODS])
def test_a_recipe_acts_in_every_method(pipe, name):
    recipes = (replace(s, steps=3 if name in THREE_STEPS else 2) for s in (PLAIN, RECIPES["negative prompt"]))
    plain, negative = (sample(build(name), pipe, recipe) for recipe in recipes)
    assert not np.array_equal(plain, negative)


@pytest.mark.parametrize("method", [Direct(), SDEdit()], ids=["pipeline", "cascade"])
@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl_pipeline])
def test_options_do_what_the_stock_pipeline_does_with_them(make, method, tmp_path):
    """A cascade of one stage is the stock pipeline."""
    pipe, size = make(tmp_path), (64, 64) if method == Direct() else (32, 32)
    pipe.set_progress_bar_config(disable=True)
    for prompt in ("blurry", ""):
        found = sample(method, pipe, replace(PLAIN, negative_prompt=prompt), size)
        assert np.array_equal(found, stock(pipe, size, negative_prompt=prompt))
    other = copy.deepcopy(pipe)
    other.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    assert np.array_equal(sample(method, pipe, RECIPES["scheduler"], size), stock(other, size))
    pipe.enable_freeu(FREEU.s1, FREEU.s2, FREEU.b1, FREEU.b2)
    expected = stock(pipe, size)
    pipe.disable_freeu()
    found = sample(method, pipe, RECIPES["FreeU"], size)
    assert np.abs(found.astype(int) - expected).max() <= 1


def told(pipe, method, sampler, size=(64, 64)):
    """The original and target sizes that SDXL's U-Net is told, in the order of its calls."""
    seen = []

    def look(projection, args):
        height, width, _, _, *target = args[0][-6:].tolist()
        assert target == [height, width]
        seen.append((int(height), int(width)))

    hook = pipe.unet.add_time_proj.register_forward_pre_hook(look)
    try:
        sample(method, pipe, sampler, size)
    finally:
        hook.remove()
    return list(dict.fromkeys(seen))


def test_what_sdxl_is_told(tmp_path):
    pipe, own = tiny_sdxl_pipeline(tmp_path), PLAIN
    base, stage, target = (replace(own, size_condition=name) for name in ("base", "stage", "target"))
    assert [told(pipe, Direct(), s) for s in (own, base, stage, target)] == [[(64, 64)], [(32, 32)]] + [[(64, 64)]] * 2
    sizes = [told(pipe, SDEdit(size_condition="base"), s, (128, 128)) for s in (own, base, stage, target)]
    assert sizes == [[(32, 32)], [(32, 32)], [(32, 32), (64, 64), (128, 128)], [(32, 32), (128, 128)]]
    assert told(pipe, DemoFusion(), stage, (96, 96)) == [(32, 32), (64, 64), (96, 96)]
    assert told(pipe, FouriScale(), own) == [(32, 32)]
    assert told(pipe, FouriScale(), target) == [(64, 64)]


def test_the_pipeline_is_as_before(pipe):
    scheduler, config = pipe.scheduler, dict(pipe.config)

    def fail():
        with sampled_as(pipe, replace(RECIPES["FreeU"], scheduler="euler")):
            assert type(pipe.scheduler).__name__ == "EulerDiscreteScheduler"
            assert any(module._forward_pre_hooks for module in pipe.unet.modules())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert pipe.scheduler is scheduler
    assert dict(pipe.config) == config
    assert not any(module._forward_pre_hooks for module in pipe.unet.modules())


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="sampler.scheduler is ddim, euler or null"):
        Sampler(scheduler="heun")
    with pytest.raises(ValueError, match="sampler.size_condition is base, stage, target or null"):
        Sampler(size_condition="own")
