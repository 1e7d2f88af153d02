"""The ComfyUI node on a U-Net with ComfyUI's names predicts what the method predicts in diffusers. ComfyUI itself is
not here: `tests.scalecrafter.comfy` stands for it.
"""

import sys
from dataclasses import replace
from functools import cache

import pytest
import torch
import yaml
from torch import nn

import scalecrafter
from scalecrafter import FreeU, Settings, available_settings
from scalecrafter.comfyui import NODE_CLASS_MAPPINGS
from scalecrafter.comfyui.names import original_names
from scalecrafter.comfyui.patch import patched, step_of
from scalecrafter.convolutions import is_spatial
from scalecrafter.schedule import reference_step
from tests.scalecrafter import comfy
from tests.scalecrafter.original_unet import original_unet
from tests.tiny import TEXT_WIDTH, tiny_pipeline, tiny_sdxl_pipeline, unet_inputs

# Timesteps of the first step, inside every window, near the ends of the windows, and after them.
TIMESTEPS = (981, 701, 341, 21)
SCALE = 6.0
SIZE = (128, 128)  # pixels: a node's latents are 8 of them
PIXELS = {"height": 64, "width": 64}  # of the same latents in the small pipeline


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """family -> small pipeline and ComfyUI model with the same weights."""

    @cache
    def made(family):
        folder = tmp_path_factory.mktemp(family)
        pipe = tiny_sdxl_pipeline(folder) if family == "sdxl" else tiny_pipeline(folder, family)
        original = original_unet(pipe.unet)
        levels = len(pipe.unet.config.block_out_channels)
        config = {"context_dim": TEXT_WIDTH[family], "channel_mult": [1] * levels}
        return pipe, comfy.ModelPatcher(comfy.BaseModel(original, config))

    return made


def conditions(pipe):
    """Unconditional and conditional inputs of ComfyUI for `unet_inputs`."""
    inputs = unet_inputs(pipe)
    both = {"c_crossattn": inputs["encoder_hidden_states"]}
    if "added_cond_kwargs" in inputs:
        added = inputs["added_cond_kwargs"]
        sizes = pipe.unet.add_time_proj(added["time_ids"].flatten()).reshape(2, -1)
        both["y"] = torch.cat([added["text_embeds"], sizes], dim=1)
    return [[{"model_conds": {name: value[i : i + 1] for name, value in both.items()}}] for i in (0, 1)]


@torch.no_grad()
def denoised(pipe, patcher, timestep, scale=SCALE):
    """The noise that ComfyUI's guidance predicts for the first latents of `unet_inputs`, with the clone in use."""
    model = patcher.patch_model()
    sigma = model.model_sampling.sigmas[timestep : timestep + 1]
    x = unet_inputs(pipe)["sample"][:1] * (sigma**2 + 1) ** 0.5
    uncond, cond = conditions(pipe)
    result = comfy.sampling_function(model, x, sigma, uncond, cond, scale, patcher.model_options)
    patcher.unpatch_model()
    return (x - result) / sigma


@torch.no_grad()
def guided(pipe, timestep, scale=SCALE):
    """The same in diffusers: u + w (c - u) of one call."""
    inputs = unet_inputs(pipe)
    inputs["sample"] = inputs["sample"][:1].repeat(2, 1, 1, 1)
    uncond, cond = pipe.unet(timestep=timestep, **inputs).sample.chunk(2)
    return uncond + scale * (cond - uncond)


def close(a, b, relative=1e-4):
    return bool((a - b).abs().max() <= relative * b.abs().max())


@pytest.fixture
def samplers(monkeypatch):
    """comfy.samplers, as it is inside ComfyUI."""
    monkeypatch.setitem(sys.modules, "comfy", comfy)
    monkeypatch.setitem(sys.modules, "comfy.samplers", comfy.samplers)


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_names_are_those_of_diffusers_conversion(families, family):
    """The conversion has copied the weights, so that they tell which convolution is which; none is missing."""
    pipe, patcher = families(family)
    names = original_names(patcher.model.diffusion_model)
    ours = {name for name, module in pipe.unet.named_modules() if is_spatial(module)}
    assert set(names) == ours - {"conv_in", "conv_out"}
    for name, place in names.items():
        converted, original = (unet.get_submodule(n) for unet, n in
                               ((pipe.unet, name), (patcher.model.diffusion_model, place)))  # fmt: skip
        assert torch.equal(converted.weight, original.weight)


# One of each family, and together every part of the method; the others differ in numbers and layers.
BY_DEFAULT = ("sd15_x16_disperse", "sd15_x4", "sd21_x8", "sdxl_x16")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in BY_DEFAULT else pytest.mark.slow) for name in available_settings()],
)
def test_it_predicts_what_the_method_predicts_in_diffusers(families, samplers, name):
    """With every part of the shipped settings, in and after their windows."""
    pipe, patcher = families(name.partition("_")[0])
    plain = {t: guided(pipe, t) for t in TIMESTEPS}
    (clone,) = NODE_CLASS_MAPPINGS["ScaleCrafter"]().patch(patcher, SIZE[1], SIZE[0], name)
    for timestep in TIMESTEPS:
        with scalecrafter.enable(pipe, **PIXELS, settings=name):
            expected = guided(pipe, timestep)
        assert close(denoised(pipe, clone, timestep), expected)
        dilated = reference_step(timestep) < Settings.load(name).tau
        assert close(expected, plain[timestep]) != dilated  # or nothing would have been tested


def test_fractional_factors_of_each_direction(families):
    pipe, patcher = families("sd15")
    settings = Settings({"mid_block.resnets.0.conv1": (1.5, 3), "down_blocks.0.downsamplers.0.conv": 2.5}, tau=50)
    with scalecrafter.enable(pipe, **PIXELS, settings=settings):
        expected = guided(pipe, 500)
    assert not close(guided(pipe, 500), expected)
    assert close(denoised(pipe, patched(patcher, settings, SIZE), 500), expected)


def test_auto_and_text(families, samplers):
    """As the same settings by hand; the text wins over the name."""
    pipe, patcher = families("sd15")
    node = NODE_CLASS_MAPPINGS["ScaleCrafter"]()
    expected = denoised(pipe, patched(patcher, Settings.load("sd15_x16"), SIZE), 981)
    assert torch.equal(denoised(pipe, *node.patch(patcher, 2048, 2048, "auto"), 981), expected)
    text = yaml.safe_dump(Settings.load("sd15_x16").to_dict())
    assert torch.equal(denoised(pipe, *node.patch(patcher, 2048, 2048, "sd15_x4", text), 981), expected)
    expected = denoised(pipe, patched(patcher, Settings.load("sd15_x4"), SIZE), 981)
    assert torch.equal(denoised(pipe, *node.patch(patcher, 1536, 1536, "auto", training_size=768), 981), expected)
    plain = denoised(pipe, patcher, 981)
    assert torch.equal(denoised(pipe, *node.patch(patcher, 512, 512, "auto"), 981), plain)


def test_other_clones_are_plain_while_one_is_in_use(families):
    """Also the same layers after it."""
    pipe, patcher = families("sd15")
    plain = denoised(pipe, patcher, 981)
    clone = patched(patcher, Settings.load("sd15_x4"), SIZE)
    clone.patch_model()
    assert torch.equal(denoised(pipe, patcher, 981), plain)
    assert not close(denoised(pipe, clone, 981), plain)
    assert torch.equal(denoised(pipe, patcher, 981), plain)


def test_a_clone_of_a_patched_model_and_one_made_while_another_is_in_use(families, samplers):
    """ComfyUI copies a clone's options deeply, and runs the node again while the last one's patches are in place."""
    pipe, patcher = families("sd15")
    clone = patched(patcher, Settings.load("sd15_x16"), SIZE)
    expected = denoised(pipe, clone, 981)
    assert torch.equal(denoised(pipe, clone.clone(), 981), expected)
    clone.patch_model()
    again = patched(patcher, Settings.load("sd15_x16"), SIZE)
    following = again.object_patches["diffusion_model.middle_block.0.in_layers.2._conv_forward"]
    assert following.plain.__func__ is nn.Conv2d._conv_forward  # not the other one, and so on
    clone.unpatch_model()
    assert torch.equal(denoised(pipe, again, 981), expected)


def test_a_part_of_the_image_has_the_settings_of_the_whole(families):
    pipe, patcher = families("sd15")
    settings = Settings.load("sd15_x4")
    expected = denoised(pipe, patched(patcher, settings, SIZE), 981)
    assert torch.equal(denoised(pipe, patched(patcher, settings, (256, 192)), 981), expected)


def test_the_wrapper_of_another_node_is_called(families):
    pipe, patcher = families("sd15")
    called = []

    def wrapper(apply_model, given):
        called.append(given["cond_or_uncond"])
        return apply_model(given["input"], given["timestep"], **given["c"])

    other = patcher.clone()
    other.set_model_unet_function_wrapper(wrapper)
    settings = Settings.load("sd15_x4")
    expected = denoised(pipe, patched(patcher, settings, SIZE), 981)
    assert torch.equal(denoised(pipe, patched(other, settings, SIZE), 981), expected)
    assert called == [[1, 0]]


def test_without_guidance_nothing_is_damped(families):
    """comfy.samplers, which is not here, would be needed otherwise."""
    pipe, patcher = families("sd15")
    settings = Settings.load("sd15_x16")
    expected = denoised(pipe, patched(patcher, replace(settings, noise_damped_tau=0), SIZE), 981, scale=1.0)
    assert torch.equal(denoised(pipe, patched(patcher, settings, SIZE), 981, scale=1.0), expected)


def test_models_without_a_training_schedule():
    """The timestep of Stable Diffusion with that noise level; its last level is a little above 0."""
    discrete, continuous = comfy.ModelSamplingDiscrete(), comfy.ModelSamplingContinuousEDM()
    for timestep in TIMESTEPS:
        sigma = discrete.sigmas[timestep : timestep + 1]
        assert step_of(discrete, sigma) == step_of(continuous, sigma) == reference_step(timestep)
    assert step_of(continuous, torch.zeros(1)) == 49


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (Settings({"mid_block.resnets.7.conv1": 2}, tau=50), "did you mean mid_block.resnets"),
        (Settings(freeu=FreeU(1.2, 1.4, 0.9, 0.2)), "ComfyUI's own FreeU node"),
    ],
)
def test_settings_that_do_not_fit(families, settings, text):
    with pytest.raises(ValueError, match=text):
        patched(families("sd15")[1], settings, SIZE)


def test_what_cannot_be_patched(families):
    _, patcher = families("sd15")
    node = NODE_CLASS_MAPPINGS["ScaleCrafter"]()
    with pytest.raises(ValueError, match="this model is a Linear"):
        node.patch(comfy.ModelPatcher(comfy.BaseModel(nn.Linear(1, 1), {})), 1024, 1024, "sd15_x4")
    with pytest.raises(ValueError, match="not shaped like SD 1.x"):
        node.patch(comfy.ModelPatcher(comfy.BaseModel(nn.Linear(1, 1), {})), 1024, 1024, "auto")
    with pytest.raises(ValueError, match="on this model already"):
        node.patch(*node.patch(patcher, 1024, 1024, "auto"), 1024, 1024, "auto")
    with pytest.raises(ValueError, match="the settings in the node: unknown settings tua"):
        node.patch(patcher, 1024, 1024, "auto", "tua: 3")


def test_calls_that_cannot_be_sampled(families, samplers):
    pipe, patcher = families("sd15")
    with pytest.raises(ValueError, match="set to 128x64 .width x height., and the image is 128x128"):
        denoised(pipe, patched(patcher, Settings.load("sd15_x4"), (64, 128)), 981)
    patcher.unpatch_model()
    other = patched(patcher, Settings.load("sd15_x16"), SIZE)
    other.set_model_sampler_cfg_function(lambda given: given["cond"])
    with pytest.raises(ValueError, match="another node has replaced"):
        denoised(pipe, other, 981)
    other.unpatch_model()
