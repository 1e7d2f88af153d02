"""HiDiffusion against a U-Net spelled out layer by layer, and the numbers of its public code."""

import pytest
import torch
from diffusers import DDIMScheduler
from torch.utils._pytree import tree_map

from baselines.one_pass.following import Moment, moment_of
from baselines.one_pass.hidiffusion import HiDiffusion, shift_of
from scalecrafter.pipeline import sampling_timesteps
from tests.baselines.one_pass.explicit import (
    SHAPES,
    Explicit,
    check_all_differ,
    close,
    inputs_for,
    scenes_unet,
    shaped,
)
from tests.baselines.one_pass.reduced import ReducedUNet
from tests.tiny import tiny_sdxl_unet


@pytest.fixture
def pipe(request, tmp_path):
    return shaped(request.param, tmp_path)


def quarters_of(method, pipe, timestep, side):
    plan = method.plan(pipe, 4 * side, 4 * side)
    return shift_of(plan, Moment(timestep), "")


# Shape, latent size, timestep -> whether the downsampler has stride 4, and whether the level is pooled.
CASES = [
    ("sd15", (16, 16), 981, True, False),
    ("sd21", (18, 26), 981, True, False),
    ("sd15", (16, 16), 301, False, False),
    ("scenes", (32, 40), 981, True, True),
    ("scenes", (32, 32), 601, True, False),
    ("scenes", (36, 34), 981, True, True),
    ("sdxl", (16, 16), 981, True, False),
    ("sdxl", (16, 20), 801, False, True),
    ("sdxl", (16, 16), 301, False, False),
    ("sdxl", (32, 32), 981, True, True),
]


@pytest.mark.parametrize(("pipe", "size", "timestep", "strided", "pool"), CASES, indirect=["pipe"])
@torch.no_grad()
def test_it_is_the_form_spelled_out(pipe, size, timestep, strided, pool):
    inputs, level = inputs_for(pipe, *size), len(pipe.unet.down_blocks) == 3
    method = HiDiffusion()
    quarters = quarters_of(method, pipe, timestep, min(size))
    with method.enable(pipe, height=4 * size[0], width=4 * size[1]):
        found = pipe.unet(timestep=timestep, **inputs).sample
    assert close(found, ReducedUNet(pipe.unet, int(level), strided, pool, quarters)(timestep, **inputs))
    if strided or pool:
        assert not close(found, Explicit(pipe.unet)(timestep, **inputs), 1e-2)


@pytest.mark.parametrize("pipe", ["sdxl"], indirect=True)
@torch.no_grad()
def test_each_part_alone_is_the_form_spelled_out(pipe):
    inputs = inputs_for(pipe, 16, 16)
    quarters = quarters_of(HiDiffusion(), pipe, 801, 16)
    for options, explicit in (({"windows": False}, (False, True)), ({"raunet": False}, (False, False, quarters))):
        with HiDiffusion(**options).enable(pipe, height=64, width=64):
            found = pipe.unet(timestep=801, **inputs).sample
        assert close(found, ReducedUNet(pipe.unet, 1, *explicit)(801, **inputs))


def window(plan, pipe, steps):
    """Active steps of the downsampler with stride 4, and of the pooling."""
    works = [plan.at(moment_of(pipe.scheduler, t)) for t in sampling_timesteps(pipe, steps)]
    return [[i for i, work in enumerate(works) if work and getattr(work, kind)] for kind in ("strided", "pooled")]


@pytest.mark.parametrize("steps", [50, 30, 25, 20, 10])
def test_public_numbers_of_steps(tmp_path, steps):
    """40, 70 and 30% of the steps, and 8 of 50, rounded down; of 30 steps, which begin at t = 958, one fewer."""
    first, most, fewer, aggressive = {
        50: (20, 35, 15, 8),
        30: (11, 20, 8, 4),
        25: (10, 17, 7, 4),
        20: (8, 14, 6, 3),
        10: (4, 7, 3, 1),
    }[steps]
    expected = {
        ("scenes", 64): (range(first), range(0)),
        ("scenes", 128): (range(most), range(fewer)),
        ("sdxl", 64): (range(aggressive), range(aggressive, first)),
        ("sdxl", 128): (range(fewer), range(most)),
    }
    for shape in ("scenes", "sdxl"):
        pipe = shaped(shape, tmp_path / shape)
        pipe.scheduler = DDIMScheduler(beta_schedule="scaled_linear", steps_offset=1)
        for side in (64, 128):
            found = window(HiDiffusion().plan(pipe, side, side), pipe, steps)
            assert found == [list(each) for each in expected[shape, side]]


def test_turbo_pools_in_two_of_four_steps(tmp_path):
    pipe = shaped("sdxl", tmp_path)
    pipe.scheduler = DDIMScheduler(timestep_spacing="trailing")
    plan = HiDiffusion(t1=0.5, aggressive=0).plan(pipe, 64, 64)
    assert window(plan, pipe, 4) == [[], [0, 1]]


def level_sizes(unet, side, timestep, tmp_path):
    """Sides of the second layers of level 1, 2 and, if there is one, 3 at SD's or SDXL's true size."""
    pipe, seen = shaped("scenes" if len(unet.down_blocks) == 4 else "sdxl", tmp_path), {}
    device = "meta" if len(unet.down_blocks) == 3 else "cpu"  # no values: attention to tokens of a high resolution
    pipe.unet = unet.to(device)
    for level, block in enumerate(unet.down_blocks):
        block.resnets[1].register_forward_hook(lambda module, args, y, n=level: seen.update({n: y.shape[-1]}))
    inputs = tree_map(lambda value: value.to(device), inputs_for(pipe, side, side, 1))
    with torch.no_grad(), HiDiffusion().enable(pipe, height=4 * side, width=4 * side):
        prediction = unet(timestep=timestep, **inputs).sample
    assert prediction.shape[-1] == side
    return [seen[level] for level in range(1, len(unet.down_blocks))]


@pytest.mark.parametrize(
    ("side", "timestep", "expected"),
    [
        (128, 981, [32, 16, 8]),
        (256, 981, [32, 16, 8]),
        (256, 601, [64, 32, 16]),
        (160, 981, [40, 20, 10]),
        (84, 981, [21, 11, 6]),
    ],
)
def test_level_sizes_of_sd(tmp_path, side, timestep, expected):
    """The second layer of level 1 is behind the pooling. Sides that do not divide come back to the skip
    connections.
    """
    assert level_sizes(scenes_unet(64), side, timestep, tmp_path) == expected


@pytest.mark.parametrize(
    ("side", "timestep", "expected"),
    [
        (256, 981, [128, 32]),
        (256, 801, [64, 32]),
        (512, 981, [128, 32]),
        (512, 601, [128, 64]),
    ],
)
def test_level_sizes_of_sdxl(tmp_path, side, timestep, expected):
    unet = tiny_sdxl_unet().eval()
    unet.register_to_config(sample_size=128)
    assert level_sizes(unet, side, timestep, tmp_path) == expected


@pytest.mark.parametrize("pipe", ["scenes"], indirect=True)
@torch.no_grad()
def test_the_downsampler_reads_every_fourth_cell(pipe):
    """A kernel with its central tap alone keeps input 4 j, one with a corner alone 4 j - 2, and zero outside."""
    conv = pipe.unet.down_blocks[0].downsamplers[0].conv
    x, seen = torch.randn(1, 8, 16, 16), []
    for tap in (1, 0):
        weight = torch.zeros(8, 8, 3, 3)
        weight[range(8), range(8), tap, tap] = 1
        conv.weight.copy_(weight)
        conv.bias.zero_()
        with HiDiffusion().enable(pipe, height=64, width=64):
            hook = conv.register_forward_hook(lambda module, args, y: seen.append((args[0], y)))
            pipe.unet(timestep=981, **inputs_for(pipe, 16, 16))
            hook.remove()
    (x, centre), (_, corner) = seen
    assert torch.equal(centre, x[..., ::4, ::4])
    expected = torch.zeros_like(corner)
    expected[..., 1:, 1:] = seen[1][0][..., 2::4, 2::4][..., :3, :3]
    assert torch.equal(corner, expected)


@pytest.mark.parametrize("pipe", ["sd15"], indirect=True)
def test_shifts_follow_the_timestep_alone(pipe):
    """All four occur, alike for all blocks unless these are to differ; another seed gives others."""
    moments = [Moment(981 - 20 * i) for i in range(50)]

    def drawn(options, name="a"):
        plan = HiDiffusion(**options).plan(pipe, 64, 64)
        torch.manual_seed(len(name))
        return [shift_of(plan, moment, name) for moment in moments]

    assert set(drawn({})) == {0, 1, 2, 3}
    assert drawn({}, "a") == drawn({}, "another block")
    assert drawn({"shifts": "block"}, "a") != drawn({"shifts": "block"}, "another block")
    assert drawn({"shift_seed": 1}) != drawn({})
    assert set(drawn({"shifts": "none"})) == {0}


@pytest.mark.parametrize("pipe", ["sdxl"], indirect=True)
def test_every_option_changes_the_prediction_and_the_description(pipe):
    changes = [{}, {"raunet": False}, {"windows": False}, {"t1": 0.1}, {"t2": 0.5}, {"aggressive": 0.3}]
    changes += [{"shifts": "none"}, {"shifts": "block"}, {"shift_seed": 3}, {"raunet": False, "windows": False}]
    check_all_differ(pipe, [HiDiffusion(**options) for options in changes], (16, 16), (861, 801, 761))


@pytest.mark.parametrize("pipe", SHAPES, indirect=True)
@torch.no_grad()
def test_little_enlarged_or_on_one_side_only_it_is_direct_inference(pipe):
    for rows, columns in ((8, 8), (9, 9), (8, 16)):
        inputs = inputs_for(pipe, rows, columns)
        plain = pipe.unet(timestep=981, **inputs).sample
        with HiDiffusion().enable(pipe, height=4 * rows, width=4 * columns):
            assert torch.equal(pipe.unet(timestep=981, **inputs).sample, plain)
        assert HiDiffusion().describe(pipe, 4 * rows, 4 * columns) == {}


@pytest.mark.parametrize("pipe", ["scenes"], indirect=True)
def test_where_no_attention_is_at_the_outer_level_there_are_no_windows(pipe):
    assert HiDiffusion().describe(pipe, 64, 64)["windows"] is None
    assert HiDiffusion(raunet=False).plan(pipe, 64, 64) is None


def test_wrong_options_raise():
    with pytest.raises(ValueError, match="t1 of HiDiffusion must be from 0 to 1"):
        HiDiffusion(t1=40)
    with pytest.raises(ValueError, match="shifts .* timestep, block, none"):
        HiDiffusion(shifts="random")
