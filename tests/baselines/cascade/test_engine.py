"""The engine against diffusers' pipelines: one stage is the stock pipeline, latent SDEdit is diffusers' img2img."""

import copy
import itertools
from dataclasses import dataclass

import diffusers
import numpy as np
import pytest
import torch
from torch.nn import functional

from baselines.cascade.sdedit import SDEdit
from baselines.direct import Direct
from baselines.method import Request, Sampler
from tests.tiny import PIPELINES, generate

IMG2IMG = {"sd": diffusers.StableDiffusionImg2ImgPipeline, "sdxl": diffusers.StableDiffusionXLImg2ImgPipeline}
KINDS = ["epsilon", "v_prediction"]
SCHEDULERS = [
    "DDIM",
    "EulerDiscrete",
    "EulerAncestralDiscrete",
    "HeunDiscrete",
    "DPMSolverMultistep",
    "UniPCMultistep",
]


@pytest.fixture(params=PIPELINES)
def named(request, tmp_path):
    """A tiny pipeline of each architecture, and its name."""
    return request.param, PIPELINES[request.param](tmp_path)


def with_scheduler(pipe, name, kind="epsilon"):
    scheduler = getattr(diffusers, f"{name}Scheduler")
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, prediction_type=kind)
    return pipe


@pytest.mark.parametrize("options", [{"guidance_scale": 1.0}, {"eta": 0.7}])
def test_one_stage_is_the_stock_pipeline(named, options):
    """At the training size, bit for bit."""
    _, pipe = named
    expected = generate(Direct(), pipe, size=(32, 32), steps=4, **options)
    assert np.array_equal(generate(SDEdit(), pipe, size=(32, 32), steps=4, **options), expected)


def test_the_autoencoder_is_in_float32_where_the_stock_pipeline_has_it_so(named):
    """SDXL's, which overflows in float16, and no other."""
    _, pipe = named
    pipe.to(torch.float16)
    types = set()
    for coder in (pipe.vae.encoder, pipe.vae.decoder):
        coder.conv_in.register_forward_pre_hook(lambda module, args: types.add(args[0].dtype))
    generate(Direct(), pipe, [1], size=(32, 32))
    (expected,) = types
    generate(SDEdit(space="rgb"), pipe, [1])
    assert types == {expected}
    assert pipe.vae.dtype == torch.float16


# By default those that no test below samples with; KDPM2 calls twice a step, as Heun does.
OTHERS = ["PNDM", "LMSDiscrete", "DDPM"]
OTHERS += [pytest.param(name, marks=pytest.mark.slow) for name in (*SCHEDULERS, "KDPM2Discrete")]


@pytest.mark.parametrize("scheduler", OTHERS)
def test_one_stage_is_the_stock_pipeline_with_every_scheduler(pipe, scheduler):
    changes = {"skip_prk_steps": True} if scheduler == "PNDM" else {}
    pipe.scheduler = getattr(diffusers, f"{scheduler}Scheduler").from_config(pipe.scheduler.config, **changes)
    images = [generate(method, pipe, [1], (32, 32), steps=4) for method in (Direct(), SDEdit())]
    assert np.array_equal(*images)


@torch.no_grad()
def img2img(name, pipe, latents, request, strength, generators):
    """diffusers' own sampling from noised latents, at their size, with what SDXL is told."""
    other = (
        IMG2IMG[name](**pipe.components) if name == "sd" else IMG2IMG[name](**pipe.components, add_watermarker=False)
    )
    other.set_progress_bar_config(disable=True)
    return other(
        list(request.prompts),
        image=latents,
        strength=strength,
        num_inference_steps=request.sampler.steps,
        guidance_scale=request.sampler.guidance_scale,
        eta=request.sampler.eta,
        generator=generators,
        output_type="latent",
    ).images


def combinations():
    """Architecture, scheduler and kind of prediction: each scheduler, each architecture with both kinds; all in
    the slow tests.
    """
    for (index, scheduler), name, kind in itertools.product(enumerate(SCHEDULERS), PIPELINES, KINDS):
        covers = kind == KINDS[index % 2] and (name == "sd" or index < 2)
        yield pytest.param(name, scheduler, kind, marks=() if covers else pytest.mark.slow)


@pytest.mark.parametrize(("named", "scheduler", "kind"), combinations(), indirect=["named"])
def test_latent_sdedit_is_diffusers_img2img_of_enlarged_latents(named, scheduler, kind):
    name, pipe = named
    with_scheduler(pipe, scheduler, kind)
    request = Request(["a b", "c"], [3, 4], 64, 96, Sampler(5, 4.0, 0.5))
    generators = [torch.Generator().manual_seed(seed) for seed in request.seeds]
    pipe.set_progress_bar_config(disable=True)
    base = pipe(
        ["a b", "c"],
        height=32,
        width=32,
        num_inference_steps=5,
        guidance_scale=4.0,
        eta=0.5,
        generator=generators,
        output_type="latent",
    ).images
    start = functional.interpolate(base, (16, 24), mode="bicubic", align_corners=False)
    # The autoencoder's factor is applied by img2img to images, not to latents.
    expected = img2img(name, pipe, start, request, 0.6, generators)
    found = SDEdit(skip=0.4).sample(pipe, request)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_sdxl_is_told_the_size_of_the_option(tmp_path):
    pipe, seen = PIPELINES["sdxl"](tmp_path), []
    hook = pipe.unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["added_cond_kwargs"]["time_ids"][0].int().tolist()),
        with_kwargs=True,
    )
    expected = {"base": [32, 32], "stage": [64, 64], "target": [128, 128]}
    for condition, size in expected.items():
        seen.clear()
        generate(SDEdit(size_condition=condition, skip=0.5), pipe, [1], (128, 128), steps=2)
        assert seen[:2] == [[32, 32, 0, 0, 32, 32]] * 2
        assert seen[2] == [*size, 0, 0, *size]
        assert seen[3] == [
            *(size if condition == "base" else (128, 128)),
            0,
            0,
            *(size if condition == "base" else (128, 128)),
        ]
    hook.remove()


@dataclass(frozen=True)
class Halved(SDEdit):
    """Halves the clean estimate of every call of later stages."""

    def edit_clean(self, sampling, clean, t):
        return clean / 2 if sampling.stage.index else None


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_edited_estimate_reaches_the_scheduler(pipe, kind):
    """The last step of a schedule that ends clean returns the estimate itself."""
    with_scheduler(pipe, "EulerDiscrete", kind)
    request = Request(["a"], [1], 64, 64, Sampler(4, 4.0))
    seen = []

    @dataclass(frozen=True)
    class Watched(Halved):
        def end_stage(self, sampling, latents):
            return latents

        def edit_clean(self, sampling, clean, t):
            edited = super().edit_clean(sampling, clean, t)
            seen.append(edited)
            return edited

    found = Watched().sample(pipe, request)
    torch.testing.assert_close(found, seen[-1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, SDEdit().sample(pipe, request), atol=1e-2)


def test_scheduler_and_pipeline_are_untouched(named):
    _, pipe = named
    with_scheduler(pipe, "DPMSolverMultistep")
    pipe.scheduler.set_timesteps(7)
    before = copy.deepcopy(vars(pipe.scheduler))
    attributes = set(vars(pipe))
    generate(SDEdit("target", space="rgb"), pipe, steps=3)
    after = vars(pipe.scheduler)
    assert set(after) == set(before)
    for key, value in before.items():
        same = torch.equal(after[key], value) if isinstance(value, torch.Tensor) else after[key] == value
        assert same, key
    assert set(vars(pipe)) == attributes


def test_invalid_options_and_pipelines_raise(pipe, tmp_path):
    for change in ({"space": "pixel"}, {"skip": 1.0}, {"count": 1}, {"size_condition": "other"}):
        with pytest.raises(ValueError, match=next(iter(change))):
            SDEdit(**change)
    pipe.scheduler = diffusers.EDMEulerScheduler()
    with pytest.raises(ValueError, match="EDMEulerScheduler"):
        SDEdit().describe(pipe, 64, 64)


def test_pipelines_with_more_inputs_are_refused(pipe):
    from tests.tiny import tiny_unet

    pipe.unet = tiny_unet(in_channels=9)
    with pytest.raises(ValueError, match="needs more inputs"):
        SDEdit().describe(pipe, 64, 64)


def test_every_option_of_sdedit_changes_the_image(pipe):
    base = generate(SDEdit(), pipe, [1], (128, 128), steps=3)
    for change in ({"space": "rgb"}, {"skip": 0.6}, {"count": 2}):
        assert not np.array_equal(generate(SDEdit(**change), pipe, [1], (128, 128), steps=3), base), change


def test_description_holds_the_sizes(named):
    name, pipe = named
    described = SDEdit(skip=0.4).describe(pipe, 128, 64)
    sdxl = {"size_condition": "target"} if name == "sdxl" else {}
    assert described == {"space": "latent", "skip": 0.4, "sizes": [list(s) for s in described["sizes"]]} | sdxl
    assert described["sizes"][-1] == [128, 64]
