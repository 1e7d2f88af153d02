"""HiDiffusion against a U-Net spelled out layer by layer, and the numbers of its public code."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

from baselines.one_pass.attention_windows import from_windows, to_windows
from baselines.one_pass.following import Moment, moment_of
from baselines.one_pass.hidiffusion import HiDiffusion, shift_of
from experiments.setup.architecture import fake
from scalecrafter.pipeline import sampling_timesteps
from tests.baselines.one_pass.explicit import (
    SHAPES,
    Explicit,
    bicubic,
    check_all_differ,
    close,
    convolved,
    inputs_for,
    pooled,
    scenes_unet,
    shaped,
)
from tests.tiny import tiny_sdxl_unet


class SlowWindows(nn.Module):
    """Self-attention of the tokens of one window after the other."""

    def __init__(self, attention, quarters):
        super().__init__()
        self.attention, self.quarters = attention, quarters

    def forward(self, x, **arguments):
        (h, w), channels = self.size, x.shape[2]
        a, b = (h + 1) // 2, (w + 1) // 2
        grid = x.transpose(1, 2).reshape(len(x), channels, h, w)
        odd = (h, w) != (2 * a, 2 * b)
        grid = bicubic(grid, (2 * a, 2 * b)) if odd else grid
        y = torch.zeros_like(grid)
        for row in range(2):
            for column in range(2):
                rows = [(row * a + i + self.quarters * (a // 4)) % (2 * a) for i in range(a)]
                columns = [(column * b + j + self.quarters * (b // 4)) % (2 * b) for j in range(b)]
                tokens = torch.stack([grid[:, :, i, j] for i in rows for j in columns], 1)
                attended = self.attention(tokens)
                for number, (i, j) in enumerate((i, j) for i in rows for j in columns):
                    y[:, :, i, j] = attended[:, number]
        y = bicubic(y, (h, w)) if odd else y
        return y.flatten(2).transpose(1, 2)


class ReducedUNet(Explicit):
    """Stride 4 in one downsampler, a pooled level, attention in windows shifted by ``quarters`` of a window."""

    def __init__(self, unet, level, strided, pool, quarters=None):
        super().__init__(unet)
        self.level, self.strided, self.pool = level, strided, pool
        if quarters is not None:
            for block in (self.unet.down_blocks[level], self.unet.up_blocks[-1 - level]):
                for attention in getattr(block, "attentions", None) or ():
                    for inner in attention.transformer_blocks:
                        inner.attn1 = SlowWindows(inner.attn1, quarters)

    def downsampled(self, level, conv, x):
        return convolved(x, conv, stride=4, spacing=2) if self.strided and level == self.level else conv(x)

    def layer(self, side, level, index, x):
        if self.pool and (side, level, index) == ("down", 1, 0):
            self.before = tuple(x.shape[-2:])
            return pooled(x)
        if self.pool and (side, level, index) == ("up", 1, 1):
            return bicubic(x, self.before)
        return x


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
    pipe.unet = unet
    for level, block in enumerate(unet.down_blocks):
        block.resnets[1].register_forward_hook(lambda module, args, y, n=level: seen.update({n: y.shape[-1]}))
    with torch.no_grad(), HiDiffusion().enable(pipe, height=4 * side, width=4 * side), fake:
        prediction = unet(timestep=timestep, **inputs_for(pipe, side, side, 1)).sample
    assert prediction.shape[-1] == side
    return [seen[level] for level in range(1, len(unet.down_blocks))]


@pytest.mark.parametrize(
    ("side", "timestep", "expected"),
    [
        (128, 981, [32, 16, 8]),
        (128, 581, [64, 32, 16]),
        (256, 981, [32, 16, 8]),
        (256, 601, [64, 32, 16]),
        (256, 281, [128, 64, 32]),
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
        (256, 581, [128, 64]),
        (512, 981, [128, 32]),
        (512, 601, [128, 64]),
        (512, 281, [256, 128]),
    ],
)
def test_level_sizes_of_sdxl(tmp_path, side, timestep, expected):
    unet = tiny_sdxl_unet().eval()
    unet.register_to_config(sample_size=128)
    assert level_sizes(unet, side, timestep, tmp_path) == expected


def test_windows_are_a_partition():
    """Eight by eight tokens, windows of four, shifted by one: numbers by hand; merging is the inverse."""
    tokens = torch.arange(64.0).view(1, 64, 1)
    windows = to_windows(tokens, (8, 8), 1)[..., 0]
    assert windows.shape == (4, 16)
    assert windows[0, :4].tolist() == [9, 10, 11, 12]
    assert windows[3, -4:].tolist() == [5, 6, 7, 0]
    for size in ((8, 8), (12, 16), (6, 20)):
        x = torch.randn(3, size[0] * size[1], 5)
        for quarters in range(4):
            windows = to_windows(x, size, quarters)
            assert windows.shape == (12, size[0] * size[1] // 4, 5)
            assert torch.equal(from_windows(windows, size, quarters), x)


def test_shifts_by_quarters_of_a_window():
    """Feature sides 128, 64, 96 and, resized to 46, 45."""
    for side, shifts in {128: (0, 16, 32, 48), 64: (0, 8, 16, 24), 96: (0, 12, 24, 36)}.items():
        x = torch.arange(float(side * side)).view(1, -1, 1)
        assert tuple(int(to_windows(x, (side, side), k)[0, 0, 0]) % side for k in range(4)) == shifts
    assert to_windows(torch.zeros(1, 45 * 45, 1), (45, 45), 3).shape == (4, 23 * 23, 1)


def test_an_odd_map_is_enlarged_and_comes_back():
    """A smooth map almost unchanged, a constant one exactly."""
    ramp = torch.linspace(0, 1, 45).view(45, 1).expand(45, 45).reshape(1, -1, 1)
    back = from_windows(to_windows(ramp, (45, 45), 2), (45, 45), 2)
    np.testing.assert_allclose(back, ramp, atol=0.03)
    constant = torch.ones(1, 45 * 45, 1)
    torch.testing.assert_close(from_windows(to_windows(constant, (45, 45), 2), (45, 45), 2), constant)


@pytest.mark.parametrize("pipe", ["sd15"], indirect=True)
@torch.no_grad()
def test_on_equal_tokens_windowed_and_global_attention_agree(pipe):
    attention = pipe.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    tokens = torch.randn(1, 1, 8).expand(1, 64, 8)
    windowed = from_windows(attention(to_windows(tokens, (8, 8), 1)), (8, 8), 1)
    torch.testing.assert_close(windowed, attention(tokens), atol=1e-6, rtol=1e-5)


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
