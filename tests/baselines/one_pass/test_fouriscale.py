"""FouriScale against a U-Net spelled out with discrete Fourier transforms, and the numbers of its public code."""

import pytest
import torch
from diffusers import StableDiffusionPipeline

from baselines.one_pass.following import Moment
from baselines.one_pass.fouriscale import FouriScale
from tests.baselines.one_pass.explicit import (
    SHAPES,
    Explicit,
    check_all_differ,
    close,
    inputs_for,
    shaped,
)
from tests.baselines.one_pass.filtered import FilteredUNet, told


class TwoPassPipeline(StableDiffusionPipeline):
    """A pipeline of the user's own, whose guidance nobody knows."""


@pytest.fixture
def pipe(request, tmp_path):
    return shaped(request.param, tmp_path)


# Shape, latent size, timestep, dilation at that step before rounding up. Base latents are 8x8.
CASES = [
    ("sd15", (16, 16), 981, 2),
    ("sd21", (16, 20), 561, 1 + 2 * 9 / 20),
    ("scenes", (32, 32), 981, 4),
    ("scenes", (32, 24), 461, 1 + 3 * 9 / 15),
    ("sdxl", (32, 32), 981, 4),
    ("sdxl", (16, 16), 381, 1 + 5 / 15),
]


@pytest.mark.parametrize(("pipe", "size", "timestep", "d"), CASES, indirect=["pipe"])
@torch.no_grad()
def test_it_is_the_form_spelled_out(pipe, size, timestep, d):
    inputs = inputs_for(pipe, *size)
    with FouriScale().enable(pipe, height=4 * size[0], width=4 * size[1]):
        found = pipe.unet(timestep=timestep, **inputs).sample
    inputs = told(inputs, 32, 32)
    assert close(found, FilteredUNet(pipe.unet, d).halves(timestep, **inputs))
    assert not close(found, Explicit(pipe.unet)(timestep, **inputs), 1e-3)


OPTIONS = {
    "edge": ({"edge": 0}, {"edge": 0}),
    "parity": ({"parity": True}, {"parity": True}),
    "floor": ({"floor": 0.3}, {"v": 0.3}),
    "attention": ({"share_attention": False}, {"share": False}),
    "divisor": ({"weak_divisor": 2.0}, {"divisor": 2.0}),
    "no filter": ({"low_pass": False}, {"low_pass": False}),
    "padded": ({"convolve_padded": True}, {"padded": True}),
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("pipe", ["scenes"], indirect=True)
@torch.no_grad()
def test_every_option_is_the_form_spelled_out(pipe, option):
    options, explicit = OPTIONS[option]
    inputs = inputs_for(pipe, 32, 28)
    with FouriScale(**options).enable(pipe, height=128, width=112):
        found = pipe.unet(timestep=981, **inputs).sample
    assert close(found, FilteredUNet(pipe.unet, 4, **explicit).halves(981, **inputs))


CHANGES = [{}, {"layers": ["mid_block"]}, {"start": 0, "stop": 30}, {"stop": 40}, {"low_pass": False}, {"floor": 0.2}]
CHANGES += [{"edge": 0}, {"third_branch": False}, {"share_attention": False}, {"weak_divisor": 4.0}]
CHANGES += [{"amplify_guidance": 2.4}, {"size_conditions": False}, {"convolve_padded": True}, {"parity": True}]


@pytest.mark.parametrize("pipe", ["sdxl"], indirect=True)
def test_every_option_changes_the_prediction_and_the_description(pipe):
    check_all_differ(pipe, [FouriScale(**options) for options in CHANGES], (32, 28), (981, 461))


@pytest.mark.parametrize("pipe", SHAPES, indirect=True)
def test_public_numbers_of_layers(pipe):
    plan = FouriScale().plan(pipe, 64, 64)
    filtered = [name for name in plan.layers if ".upsamplers." not in name]
    assert (len(plan.layers), len(filtered)) == ((21, 20) if len(pipe.unet.down_blocks) == 3 else (34, 31))


def dilations(plan, kind):
    """Dilation -> number of the 50 steps of DDIM with it."""
    works = [plan.at(Moment(981 - 20 * i)) for i in range(50)]
    found = [getattr(work, kind) for work in works if work is not None]
    assert None not in works[: len(found)]
    return {d: found.count(d) for d in sorted(found, reverse=True)}


@pytest.mark.parametrize("pipe", ["sd15"], indirect=True)
def test_public_dilations_of_sd(pipe):
    assert dilations(FouriScale().plan(pipe, 64, 64), "strong") == {2: 30}
    assert dilations(FouriScale().plan(pipe, 80, 80), "strong") == {3: 20, 2: 10}
    assert dilations(FouriScale().plan(pipe, 128, 128), "strong") == {4: 25, 3: 5, 2: 5}
    assert dilations(FouriScale().plan(pipe, 128, 64), "strong") == {4: 25, 3: 5, 2: 5}
    assert dilations(FouriScale(start=20, stop=35).plan(pipe, 80, 80), "strong") == {3: 28, 2: 7}
    assert FouriScale().plan(pipe, 128, 128).at(Moment(981 - 20 * 27)).factor == pytest.approx(2.6)


@pytest.mark.parametrize("pipe", ["sdxl"], indirect=True)
def test_public_dilations_of_sdxl_and_its_third_branch(pipe):
    assert dilations(FouriScale().plan(pipe, 64, 64), "strong") == {2: 35}
    assert dilations(FouriScale().plan(pipe, 64, 64), "weak") == {2: 28, 1: 7}
    assert dilations(FouriScale().plan(pipe, 128, 128), "weak") == {3: 25, 2: 8, 1: 2}
    assert dilations(FouriScale().plan(pipe, 96, 96), "weak") == {2: 32, 1: 3}


@pytest.mark.parametrize("pipe", ["scenes", "sdxl"], indirect=True)
@torch.no_grad()
def test_after_its_last_step_and_at_the_training_size_it_is_direct_inference(pipe):
    last = 401 if len(pipe.unet.down_blocks) == 4 else 301
    for side, timestep in ((16, last - 20), (8, 981)):
        inputs = inputs_for(pipe, side, side)
        plain = pipe.unet(timestep=timestep, **inputs).sample
        with FouriScale(size_conditions=False).enable(pipe, height=4 * side, width=4 * side):
            assert torch.equal(pipe.unet(timestep=timestep, **inputs).sample, plain)
    assert FouriScale().describe(pipe, 32, 32) == {}


@pytest.mark.parametrize("pipe", ["scenes", "sdxl"], indirect=True)
@torch.no_grad()
def test_equal_branches_are_one(pipe):
    """Without filters, and with equal dilations, the third branch is the second."""
    found = []
    for options in ({"third_branch": False}, {"weak_divisor": 1.0}, {"weak_divisor": 1.0, "share_attention": False}):
        with FouriScale(low_pass=False, **options).enable(pipe, height=64, width=64):
            found.append(pipe.unet(timestep=981, **inputs_for(pipe, 16, 16)).sample)
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


@pytest.mark.parametrize("pipe", ["sdxl"], indirect=True)
@torch.no_grad()
def test_sdxl_is_told_the_training_size_in_every_step(pipe):
    """A base of 32 pixels is a 32nd of SDXL's, so of 96x128 it is that of 832x1152."""
    inputs = inputs_for(pipe, 24, 32)
    for timestep in (981, 1):
        with FouriScale().enable(pipe, height=96, width=128):
            found = pipe.unet(timestep=timestep, **inputs).sample
        with FouriScale(size_conditions=False).enable(pipe, height=96, width=128):
            assert not torch.equal(pipe.unet(timestep=timestep, **inputs).sample, found)
            assert torch.equal(pipe.unet(timestep=timestep, **told(inputs, 26, 36)).sample, found)


@pytest.mark.parametrize("pipe", ["scenes"], indirect=True)
@torch.no_grad()
def test_amplified_guidance_acts_before_the_annealing(pipe):
    inputs, found = inputs_for(pipe, 32, 32), []
    for factor, timestep in ((1.0, 981), (2.4, 981), (1.0, 581), (2.4, 581)):
        with FouriScale(amplify_guidance=factor).enable(pipe, height=128, width=128):
            found.append(pipe.unet(timestep=timestep, **inputs).sample)
    (uncond, cond), (same, more) = found[0].chunk(2), found[1].chunk(2)
    assert torch.equal(same, uncond)
    torch.testing.assert_close(more, uncond + 2.4 * (cond - uncond))
    assert torch.equal(found[2], found[3])


@pytest.mark.parametrize("pipe", ["scenes"], indirect=True)
@torch.no_grad()
def test_without_guidance_every_sample_is_a_prompt(pipe):
    """Two prompts; each has a mildly filtered branch, with the attention of its own strongly filtered one."""
    pipe._guidance_scale = 1.0
    inputs = inputs_for(pipe, 32, 32)
    with FouriScale().enable(pipe, height=128, width=128):
        found = pipe.unet(timestep=981, **inputs).sample
    for index in range(2):
        pair = {name: value[[index, index]] for name, value in inputs.items()}
        assert close(found[index], FilteredUNet(pipe.unet, 4).halves(981, **pair)[1])


@pytest.mark.parametrize("pipe", ["sd15"], indirect=True)
def test_what_does_not_fit_raises(pipe):
    with pytest.raises(ValueError, match="edge of FouriScale must be from 0"):
        FouriScale(edge=-1)
    with pytest.raises(ValueError, match="start .* not be after stop, and 20 is after 10"):
        FouriScale(start=20, stop=10).describe(pipe, 64, 64)
    with pytest.raises(ValueError, match="mid_blok"):
        FouriScale(layers=["mid_blok"]).describe(pipe, 64, 64)
    pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.fused_projections = True
    with pytest.raises(ValueError, match="unfuse_qkv_projections"):
        FouriScale().describe(pipe, 64, 64)


@pytest.mark.parametrize("pipe", ["sd15"], indirect=True)
def test_guidance_of_an_unknown_kind_raises(pipe):
    pipe.__class__ = TwoPassPipeline
    with FouriScale().enable(pipe, height=64, width=64), pytest.raises(ValueError, match="TwoPassPipeline"):
        pipe.unet(timestep=981, **inputs_for(pipe, 16, 16))
