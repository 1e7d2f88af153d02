"""Every pipeline class and scheduler on tiny models of each family, loaded from disk."""

from functools import cache, partial

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UniPCMultistepScheduler,
)
from PIL import Image

import scalecrafter
from scalecrafter import Settings
from scalecrafter.settings import expand
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline

SCHEDULERS = [
    DDIMScheduler,
    EulerDiscreteScheduler,
    EulerAncestralDiscreteScheduler,
    DPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
    LCMScheduler,
    EDMEulerScheduler,
]
KINDS = {
    "sd": {
        "text": StableDiffusionPipeline,
        "img2img": StableDiffusionImg2ImgPipeline,
        "inpaint": StableDiffusionInpaintPipeline,
        "controlnet": StableDiffusionControlNetPipeline,
    },
    "sdxl": {
        "text": StableDiffusionXLPipeline,
        "img2img": StableDiffusionXLImg2ImgPipeline,
        "inpaint": StableDiffusionXLInpaintPipeline,
        "controlnet": StableDiffusionXLControlNetPipeline,
    },
}
# Every part of the method at once, on layers that all families have.
TABLE = expand({"mid_block": 2, "up_blocks.0+s": 1.5, "down_blocks.1": (2, 1)})
FULL = Settings(
    TABLE,
    tau=50,
    noise_damped_dilation=expand({"mid_block": 2}),
    noise_damped_tau=40,
    dispersed=tuple(expand({"mid_block": 1})),
    dispersed_tau=30,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folder of a saved pipeline for each family."""
    root = tmp_path_factory.mktemp("families")
    for family in ("sd15", "sd21"):
        tiny_pipeline(root / "tokenizer", family).save_pretrained(root / family)
    tiny_sdxl_pipeline(root / "tokenizer").save_pretrained(root / "sdxl")
    return root


def load(folders, family, kind="text"):
    cls = KINDS["sdxl" if family == "sdxl" else "sd"][kind]
    if kind != "controlnet":
        return cls.from_pretrained(folders / family, local_files_only=True)
    pipe = KINDS["sdxl" if family == "sdxl" else "sd"]["text"].from_pretrained(folders / family)
    torch.manual_seed(0)
    controlnet = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(4, 8, 8))
    for layer in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
        torch.nn.init.normal_(layer.weight, std=0.1)
    return cls.from_pretrained(folders / family, controlnet=controlnet, local_files_only=True)


@pytest.fixture(scope="module")
def shared(folders):
    """shared(family) -> its pipeline, loaded once: for tests that only enable the method, which leaves nothing."""
    return cache(partial(load, folders))


def sample(pipe, kind="text", height=64, width=64, steps=3, strength=0.8, **options):
    pipe.set_progress_bar_config(disable=True)
    image = Image.fromarray(np.linspace(0, 255, height * width * 3).reshape(height, width, 3).astype(np.uint8))
    mask = Image.fromarray(np.repeat([[0], [255]], height // 2, axis=0).repeat(width, axis=1).astype(np.uint8))
    inputs = {
        "text": {"height": height, "width": width},
        "img2img": {"image": image, "strength": strength},
        "inpaint": {"image": image, "mask_image": mask, "strength": strength, "height": height, "width": width},
        "controlnet": {"image": image, "height": height, "width": width},
    }
    options = {"guidance_scale": 5.0, "generator": torch.Generator().manual_seed(0), "output_type": "np"} | options
    images = pipe("a b", num_inference_steps=steps, **inputs[kind], **options).images
    assert images.shape == (1, height, width, 3)
    assert np.isfinite(images).all()
    return images


def check_method_acts(pipe, settings=FULL, kind="text", size=(64, 64), **options):
    """Sample without, with and without the method: it must change the image and be gone afterwards.

    Returns:
        The image sampled with the method.
    """
    before = sample(pipe, kind, *size, **options)
    with scalecrafter.enable(pipe, height=size[0], width=size[1], settings=settings):
        changed = sample(pipe, kind, *size, **options)
    assert np.abs(changed - before).max() > 1e-5
    assert np.array_equal(sample(pipe, kind, *size, **options), before)
    return changed


@pytest.mark.parametrize(("family", "size"), [("sd15", (96, 32)), ("sd21", (160, 96)), ("sdxl", (64, 96))])
def test_auto_at_other_sizes(shared, family, size):
    check_method_acts(shared(family), "auto", size=size)


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda cls: cls.__name__)
def test_every_scheduler(folders, scheduler):
    pipe = load(folders, "sdxl" if scheduler is EulerDiscreteScheduler else "sd15")  # SDXL's own is Euler
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    check_method_acts(pipe)


@pytest.mark.parametrize("kind", KINDS["sd"])
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_every_kind_of_pipeline(folders, family, kind):
    check_method_acts(load(folders, family, kind), kind=kind)


def test_a_scheduler_of_unknown_noise_levels_is_refused(folders):
    pipe = load(folders, "sd15")
    pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler"):
        scalecrafter.enable(pipe, height=64, width=64, settings=FULL)


def test_single_step_and_ddim_noise(folders):
    check_method_acts(load(folders, "sd15"), steps=1, eta=1.0)


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_window_of_img2img_follows_its_timesteps(folders, strength):
    """With strength 0.2 sampling starts at t < 200: a window of 30 of 50 steps is over before it."""
    pipe = load(folders, "sd15", "img2img")
    early = Settings(TABLE, tau=30)
    before = sample(pipe, "img2img", steps=10, strength=strength)
    with scalecrafter.enable(pipe, height=64, width=64, settings=early):
        changed = sample(pipe, "img2img", steps=10, strength=strength)
    assert np.array_equal(before, changed) == (strength == 0.2)


def test_latent_consistency_without_guidance(folders):
    pipe = load(folders, "sd15")
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    check_method_acts(pipe, Settings(TABLE, tau=50), steps=4, guidance_scale=1.0)


@pytest.mark.parametrize("change", ["attention slicing", "tiling", "bfloat16", "float64"])
def test_other_options_of_the_pipeline(folders, change):
    pipe = load(folders, "sd15")
    if change == "attention slicing":
        pipe.enable_attention_slicing()
    elif change == "tiling":
        pipe.vae.enable_tiling()
    else:
        pipe.to(dtype=getattr(torch, change))
    check_method_acts(pipe)


def test_channels_last_gives_the_same_image(folders):
    pipe = load(folders, "sd15")
    plain = check_method_acts(pipe)
    pipe.unet.to(memory_format=torch.channels_last)
    np.testing.assert_allclose(check_method_acts(pipe), plain, atol=1e-3)


def test_offloading_hooks_keep_working(folders):
    """accelerate replaces the forward of every module and loads weights when they are needed."""
    from accelerate import cpu_offload

    pipe = load(folders, "sd15")
    plain = check_method_acts(pipe)
    cpu_offload(pipe.unet, execution_device=torch.device("cpu"))
    np.testing.assert_allclose(check_method_acts(pipe), plain, atol=1e-6)


@pytest.mark.parametrize("in_place", [True, False])
def test_compiled_unet_raises(folders, in_place):
    pipe = load(folders, "sd15")
    if in_place:
        pipe.unet.compile(backend="eager")
    else:
        pipe.unet = torch.compile(pipe.unet, backend="eager")
    with pytest.raises(ValueError, match="compiled"):
        scalecrafter.enable(pipe, height=64, width=64)


def test_half_precision_overflow_raises(folders):
    pipe = load(folders, "sd15")
    pipe.to(dtype=torch.float16)
    with torch.no_grad():
        pipe.unet.conv_out.bias.fill_(float("inf"))
    with (
        scalecrafter.enable(pipe, height=64, width=64, settings=FULL),
        pytest.raises(ValueError, match="half precision: load the pipeline in bfloat16"),
    ):
        sample(pipe)
