"""Deep Shrink against a U-Net spelled out layer by layer, and the numbers of its public codes."""

import pytest
import torch
from diffusers import DDIMScheduler

from baselines.one_pass.deep_shrink import DeepShrink
from baselines.one_pass.following import moment_of
from scalecrafter.pipeline import sampling_timesteps
from tests.baselines.one_pass.explicit import (
    SHAPES,
    Explicit,
    bicubic,
    check_all_differ,
    close,
    inputs_for,
    scenes_unet,
    shaped,
)


class ShrunkUNet(Explicit):
    """Smaller behind one input block by ``factors``, larger again where a skip connection is."""

    def __init__(self, unet, factors, block=3, after_skip=True):
        super().__init__(unet)
        self.factors, self.block, self.after_skip = factors, block, after_skip

    def smaller(self, x):
        size = tuple(max(1, round(n / f)) for n, f in zip(x.shape[-2:], self.factors, strict=True))
        return bicubic(x, size) if size != tuple(x.shape[-2:]) else x

    def behind(self, number, x):
        return self.smaller(x) if self.after_skip and number == self.block else x

    def layer(self, side, level, index, x):
        here = side == "down" and not self.after_skip and 3 * level + 1 + index == self.block
        return self.smaller(x) if here else x

    def downsampled(self, level, conv, x):
        y = conv(x)
        return self.smaller(y) if not self.after_skip and 3 * level + 3 == self.block else y

    def met(self, x, skip):
        size = tuple(skip.shape[-2:])
        return bicubic(x, size) if size != tuple(x.shape[-2:]) else x


CASES = {
    "as published": ({}, {}),
    "another block": ({"block": 6}, {"block": 6}),
    "inside a block": ({"block": 4}, {"block": 4}),
    "the deepest": ({"block": 8}, {"block": 8}),
    "with its skip connection": ({"block": 3, "after_skip": False}, {"after_skip": False}),
    "a layer with its skip connection": ({"block": 2, "after_skip": False}, {"block": 2, "after_skip": False}),
    "another factor": ({"factor": 3.0}, {"factors": (3, 3)}),
}


@pytest.fixture(params=SHAPES)
def pipe(request, tmp_path):
    return shaped(request.param, tmp_path)


@pytest.mark.parametrize("size", [(16, 16), (18, 28)])
@torch.no_grad()
def test_it_is_the_form_spelled_out(pipe, size):
    inputs = inputs_for(pipe, *size)
    factors = tuple(side / 8 for side in size)
    with DeepShrink().enable(pipe, height=4 * size[0], width=4 * size[1]):
        found = pipe.unet(timestep=801, **inputs).sample
    assert close(found, ShrunkUNet(pipe.unet, factors)(801, **inputs))
    assert not close(found, Explicit(pipe.unet)(801, **inputs), 1e-2)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("pipe", ["scenes", "sdxl"], indirect=True)
@torch.no_grad()
def test_every_option_is_the_form_spelled_out(pipe, case):
    options, explicit = CASES[case]
    inputs = inputs_for(pipe, 16, 20)
    with DeepShrink(**options).enable(pipe, height=64, width=80):
        found = pipe.unet(timestep=801, **inputs).sample
    assert close(found, ShrunkUNet(pipe.unet, **{"factors": (2, 2.5), **explicit})(801, **inputs))


@pytest.mark.parametrize("pipe", ["scenes"], indirect=True)
def test_every_option_changes_the_prediction_and_the_description(pipe):
    changes = [{}, {"factor": 3.0}, {"block": 4}, {"start": 0.3}, {"end": 0.1}, {"after_skip": False}]
    changes += [{"shrinking": "area"}, {"growing": "bilinear"}]
    check_all_differ(pipe, [DeepShrink(**options) for options in changes], (16, 16), (981, 801))


@pytest.mark.parametrize("pipe", ["sd15", "sdxl"], indirect=True)
@torch.no_grad()
def test_outside_its_window_and_at_the_training_size_nothing_changes(pipe):
    for side, timestep in ((16, 648), (16, 1), (8, 981)):
        inputs = inputs_for(pipe, side, side)
        plain = pipe.unet(timestep=timestep, **inputs).sample
        with DeepShrink().enable(pipe, height=4 * side, width=4 * side):
            assert torch.equal(pipe.unet(timestep=timestep, **inputs).sample, plain)
    assert DeepShrink(end=0.0).plan(pipe, 64, 64) is None
    assert DeepShrink().describe(pipe, 32, 32) == {}


def test_public_numbers_of_calls(tmp_path):
    """The window of the public node ends at t = 649.35, that of the community pipeline at 600."""
    pipe = shaped("scenes", tmp_path)
    pipe.scheduler = DDIMScheduler(beta_schedule="scaled_linear", steps_offset=1)

    def active(method, steps):
        plan = method.plan(pipe, 64, 64)
        return sum(plan.at(moment_of(pipe.scheduler, t)) is not None for t in sampling_timesteps(pipe, steps))

    steps = (50, 30, 25, 20, 10)
    assert [active(DeepShrink(), n) for n in steps] == [17, 10, 8, 7, 3]
    assert [active(DeepShrink(end=0.4), n) for n in steps] == [20, 11, 10, 8, 4]


@pytest.mark.parametrize(
    ("side", "sizes"),
    [
        (128, {"conv_in": 128, "down0": 64, "level1": 32, "level2": 16, "level3": 8, "grown": 64}),
        (72, {"conv_in": 72, "down0": 36, "level1": 32, "level2": 16, "level3": 8, "grown": 36}),
    ],
)
@torch.no_grad()
def test_sizes_of_the_levels(tmp_path, side, sizes):
    """At SD 1.5's size: below the first level they are those of a 512x512 image."""
    pipe = shaped("scenes", tmp_path)
    pipe.unet = scenes_unet(64)
    seen = sizes_seen(pipe, DeepShrink(), side)
    assert seen == sizes


@torch.no_grad()
def test_with_the_public_factor_odd_sizes_pass(tmp_path):
    pipe = shaped("scenes", tmp_path)
    pipe.unet = scenes_unet(64)
    seen = sizes_seen(pipe, DeepShrink(factor=2.0), 72)
    assert [seen[name] for name in ("conv_in", "level1", "level2", "level3")] == [72, 18, 9, 5]


def sizes_seen(pipe, method, side):
    """Sides of feature maps in one call."""
    unet, seen = pipe.unet, {}
    places = {
        "conv_in": unet.conv_in,
        "down0": unet.down_blocks[0].downsamplers[0],
        **{f"level{level}": unet.down_blocks[level].resnets[1] for level in (1, 2, 3)},
        "grown": unet.up_blocks[2].resnets[2],
    }
    hooks = [
        module.register_forward_hook(lambda module, args, y, name=name: seen.update({name: y.shape[-1]}))
        for name, module in places.items()
    ]
    with method.enable(pipe, height=4 * side, width=4 * side):
        assert unet(timestep=981, **inputs_for(pipe, side, side, 1)).sample.shape[-1] == side
    for hook in hooks:
        hook.remove()
    return seen


def test_wrong_options_raise(tmp_path):
    for options, message in (
        ({"factor": 0.5}, "factor .* 1 or more"),
        ({"end": 1.5}, "from 0 to 1"),
        ({"growing": "lanczos"}, "growing .* bicubic, bilinear"),
    ):
        with pytest.raises(ValueError, match=message):
            DeepShrink(**options)
    pipe = shaped("sdxl", tmp_path)
    with pytest.raises(ValueError, match="block of Deep Shrink must be 1 to 8 .* not 9"):
        DeepShrink(block=9).describe(pipe, 64, 64)
