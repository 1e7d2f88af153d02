"""What Deep Shrink, HiDiffusion and FouriScale have in common: calls as planned, the U-Net restored, refusals."""

import threading
from collections import Counter

import pytest
import torch
from diffusers import UNet2DConditionModel

from baselines.method import Request, Sampler
from baselines.one_pass.deep_shrink import DeepShrink
from baselines.one_pass.fouriscale import FouriScale
from baselines.one_pass.hidiffusion import HiDiffusion
from tests.baselines.one_pass.explicit import SHAPES, inputs_for, shaped
from tests.scalecrafter.changes import schedulers
from tests.tiny import generate

METHODS = {"deep_shrink": DeepShrink(), "hidiffusion": HiDiffusion(), "fouriscale": FouriScale()}
SCHEDULERS = schedulers()


@pytest.fixture(params=SHAPES)
def pipe(request, tmp_path):
    return shaped(request.param, tmp_path)


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


def work(unet, found):
    """Note of each call how many samples it has and what size its second and its deepest level have."""

    def note(module, args):
        found[-1].append(tuple(args[0].shape[-2:]))

    unet.conv_in.register_forward_pre_hook(lambda module, args: found.append([len(args[0])]))
    unet.down_blocks[1].resnets[1].register_forward_pre_hook(note)
    unet.mid_block.resnets[0].register_forward_pre_hook(note)
    return found


def with_every_scheduler():
    """Each method and scheduler; by default each scheduler with one of the methods, in turn."""
    names = list(METHODS)
    for index, scheduler in enumerate(SCHEDULERS):
        for name in names:
            marks = () if name == names[index % len(names)] else pytest.mark.slow
            yield pytest.param(name, scheduler, id=f"{name}-{scheduler}", marks=marks)


@pytest.mark.parametrize("pipe", ["scenes"], indirect=True)
@pytest.mark.parametrize(("method", "scheduler"), with_every_scheduler(), indirect=["method"])
def test_calls_are_those_counted_with_every_scheduler(pipe, method, scheduler):
    pipe.scheduler = SCHEDULERS[scheduler](pipe.scheduler.config)
    check_calls(pipe, method, Request(["a"], [1], 64, 80, Sampler(3)))


def test_calls_are_those_counted_with_every_shape(pipe, method):
    check_calls(pipe, method, Request(["a", "b"], [1, 2], 64, 64, Sampler(4, 7.5)))


@pytest.mark.parametrize("pipe", ["scenes"], indirect=True)
def test_calls_are_those_counted_without_guidance(pipe, method):
    check_calls(pipe, method, Request(["a", "b"], [1, 2], 64, 64, Sampler(4, 1.0)))


def check_calls(pipe, method, request):
    """A call of each planned kind, as often as planned, is what sampling does."""
    counted = work(pipe.unet, [])
    method.generate(pipe, request)
    sampled, planned = [str(call) for call in counted], Counter()
    for calls in method.calls(pipe, request):
        counted.clear()
        with method.enable(pipe, height=request.height, width=request.width), torch.no_grad():
            inputs = inputs_for(pipe, calls.height, calls.width, calls.samples)
            pipe.unet(timestep=calls.timestep, **inputs)
        planned[str(counted[0])] += calls.times
    assert Counter(sampled) == planned


@pytest.mark.parametrize("pipe", ["scenes"], indirect=True)
def test_share_of_calls_with_a_third_branch(pipe):
    """1.30 and 1.35 times the pairs of direct inference, at four and at sixteen times the area."""
    counted = work(pipe.unet, [])
    for side, pairs in ((64, 65), (128, 67.5)):
        total = 0.0
        for calls in FouriScale().calls(pipe, Request(["a"], [1], side, side, Sampler(50))):
            with FouriScale().enable(pipe, height=side, width=side), torch.no_grad():
                pipe.unet(timestep=calls.timestep, **inputs_for(pipe, calls.height, calls.width, calls.samples))
            total += calls.times * counted[-1][0] / 2
        assert total == pairs


def state(unet):
    """Everything that a method may leave behind: attributes, hooks and weights."""
    found = {}
    for name, module in unet.named_modules():
        values = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        hooks = [len(getattr(module, kind)) for kind in vars(module) if "hooks" in kind and getattr(module, kind)]
        found[name] = (set(vars(module)), {k: v for k, v in values.items() if isinstance(v, (int, tuple))}, hooks)
    return found, {name: value.clone() for name, value in unet.state_dict().items()}


def test_the_unet_is_restored_also_after_an_error_inside_a_call(pipe, method):
    before, weights = state(pipe.unet)
    inputs = inputs_for(pipe, 16, 16)
    plain = pipe.unet(timestep=981, **inputs).sample
    resnet = pipe.unet.up_blocks[-1].resnets[0]
    conv, resnet.conv1 = resnet.conv1, torch.nn.Conv2d(1, 1, 3)
    with pytest.raises(RuntimeError), method.enable(pipe, height=64, width=64):
        pipe.unet(timestep=981, **inputs)
    resnet.conv1 = conv
    after, now = state(pipe.unet)
    assert after == before
    assert all(torch.equal(weights[name], now[name]) for name in weights)
    assert torch.equal(pipe.unet(timestep=981, **inputs).sample, plain)


@pytest.mark.parametrize("pipe", ["scenes"], indirect=True)
def test_after_an_error_layers_work_as_before(pipe, method):
    """Within the context, but outside a call."""
    downsampler, x = pipe.unet.down_blocks[0].downsamplers[0], torch.randn(1, 8, 16, 16)
    plain = downsampler(x)
    conv = pipe.unet.conv_out
    with method.enable(pipe, height=64, width=64):
        pipe.unet.conv_out = torch.nn.Conv2d(1, 1, 3)
        with pytest.raises(RuntimeError):
            pipe.unet(timestep=981, **inputs_for(pipe, 16, 16))
        assert torch.equal(downsampler(x), plain)
        pipe.unet.conv_out = conv


@pytest.mark.parametrize("pipe", ["scenes"], indirect=True)
@torch.no_grad()
def test_calls_in_two_threads_do_not_see_each_other(pipe, method):
    """One in the method's window, one after it."""
    inputs, found = inputs_for(pipe, 16, 16), {}
    with method.enable(pipe, height=64, width=64):
        alone = {t: pipe.unet(timestep=t, **inputs).sample for t in (981, 1)}

        def call(t):
            with torch.no_grad():
                found[t] = [pipe.unet(timestep=t, **inputs).sample for _ in range(4)]

        threads = [threading.Thread(target=call, args=(t,)) for t in alone]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(torch.equal(each, alone[t]) for t in alone for each in found[t])


@pytest.mark.parametrize("pipe", ["sd21", "scenes"], indirect=True)
def test_images_of_any_aspect(pipe, method):
    for size in ((64, 40), (40, 104), (136, 64)):
        assert generate(method, pipe, [1], size, steps=1).shape == (1, *size, 3)


@pytest.mark.parametrize("pipe", ["sdxl"], indirect=True)
def test_what_a_method_does_not_fit_raises(pipe, method):
    inputs = inputs_for(pipe, 16, 16)
    with method.enable(pipe, height=64, width=64), pytest.raises(ValueError, match="64x64 .* called at 64x80"):
        pipe.unet(timestep=981, **inputs_for(pipe, 16, 20))
    pipe.unet.enable_gradient_checkpointing()
    with method.enable(pipe, height=64, width=64), pytest.raises(ValueError, match="gradient checkpointing"):
        pipe.unet(timestep=981, **inputs)
    small = {"sample_size": 8, "block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 2}
    kinds = {"cross_attention_dim": 16, "attention_head_dim": 2}
    pipe.unet = UNet2DConditionModel(
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("UpBlock2D",) * 2, **small, **kinds
    )
    with pytest.raises(ValueError, match="needs the image U-Net of Stable Diffusion .* with AttnDownBlock2D"):
        method.describe(pipe, 64, 64)


@pytest.mark.parametrize("name", ["hidiffusion", "fouriscale"])
@pytest.mark.parametrize("pipe", ["sd15"], indirect=True)
def test_another_number_of_levels_is_refused_with_a_reason(pipe, name):
    pipe.unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=pipe.unet.config.cross_attention_dim,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    with pytest.raises(ValueError, match=r"needs a U-Net of 3 or 4 levels .* this one has 2"):
        METHODS[name].describe(pipe, 64, 64)
    assert generate(DeepShrink(), pipe, [1], (64, 64), steps=2).shape == (1, 64, 64, 3)


@pytest.mark.parametrize("pipe", ["sd15"], indirect=True)
@torch.no_grad()
def test_residuals_of_a_controlnet_are_refused_while_maps_are_resized(pipe, method):
    """FouriScale keeps sizes and gives its third branch the residuals of the prompt's."""
    inputs = inputs_for(pipe, 16, 16)
    skips = [torch.zeros(2, 8, 16, 16)] * 3 + [torch.zeros(2, 8, 8, 8)] + [torch.zeros(2, 16, 8, 8)] * 2
    skips += [torch.zeros(2, 16, 4, 4)] * 3 + [torch.zeros(2, 16, 2, 2)] * 3
    residuals = {
        "down_block_additional_residuals": skips,
        "mid_block_additional_residual": torch.zeros(2, 16, 2, 2),
    }
    with method.enable(pipe, height=64, width=64):
        if method is METHODS["fouriscale"]:
            expected = pipe.unet(timestep=981, **inputs).sample
            assert torch.equal(pipe.unet(timestep=981, **inputs, **residuals).sample, expected)
        else:
            with pytest.raises(ValueError, match="ControlNet or T2I-Adapter"):
                pipe.unet(timestep=981, **inputs, **residuals)
