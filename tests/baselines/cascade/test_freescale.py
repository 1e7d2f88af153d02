"""FreeScale against its published constants, and an explicit loop with attention written out window by window."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from baselines.cascade.attention import ScaleFusion, level_of, window_count, window_starts
from baselines.cascade.freescale import FreeScale, deep_convolutions
from baselines.cascade.images import blur, gaussian
from baselines.cascade.parts import cosine
from baselines.cascade.sdedit import SDEdit
from baselines.method import Request, Sampler
from scalecrafter.schedule import step_of_call
from tests.baselines.cascade import slow
from tests.tiny import generate, tiny_pipeline, tiny_sdxl_pipeline

METHOD = FreeScale()
PLAIN = {"blend": None, "dilate": False, "fuse": False}


@pytest.fixture
def pipe(tmp_path):
    """With attention at every level that Stable Diffusion has it."""
    return tiny_pipeline(tmp_path / "sd15", "sd15")


def test_published_costs(pipe, planned_pairs):
    assert planned_pairs(METHOD, pipe, 2, 2) == 190
    assert planned_pairs(METHOD, pipe, 4, 4) == 750


def test_published_weights_and_windows_in_time(pipe):
    """At calls 15, 20, 30 and 40 of 50; dilation in calls 15 to 34."""
    weights = {15: 0.591728, 20: 0.391708, 30: 0.100742, 40: 0.006191}
    for index, weight in weights.items():
        assert cosine(pipe.scheduler, 981 - 20 * index) ** 2 == pytest.approx(weight, abs=1e-6)
    calls = METHOD.parts(pipe, [(32, 32), (64, 64)], 50)[1].trajectory(pipe.scheduler).timesteps.tolist()
    assert len(calls) == 35
    dilated = [t for t in calls if step_of_call(pipe.scheduler, t) < METHOD.dilate_until]
    assert (len(dilated), dilated[0], dilated[-1]) == (20, 681, 301)


def test_nine_convolutions_of_sdxl_are_dilated(pipe, tmp_path):
    resnets = [
        f"{block}.resnets.{i}.conv{k}" for block in ("down_blocks.2", "mid_block") for i in (0, 1) for k in (1, 2)
    ]
    sdxl = deep_convolutions(tiny_sdxl_pipeline(tmp_path / "sdxl").unet)
    assert sorted(sdxl) == sorted(["down_blocks.1.downsamplers.0.conv", *resnets])
    deeper = [f"down_blocks.3.resnets.{i}.conv{k}" for i in (0, 1) for k in (1, 2)]
    assert sorted(deep_convolutions(pipe.unet)) == sorted([*sdxl, *deeper, "down_blocks.2.downsamplers.0.conv"])


def test_without_its_parts_it_is_sdedit(pipe):
    images = [generate(m, pipe, [1]) for m in (FreeScale(**PLAIN), SDEdit(space="rgb", size_condition="base"))]
    assert np.array_equal(*images)


def test_windows():
    """Nine at twice the training side, 49 at four times, 225 at eight times; the outer ones reach the borders."""
    assert [window_count(length, 64) ** 2 for length in (64, 128, 256, 512)] == [1, 9, 49, 225]
    assert [window_count(length, 32) for length in (64, 48, 33)] == [3, 2, 2]
    assert window_starts(128, 64, [1, 1, 1]) == [0, 40, 64]
    assert window_starts(128, 64, [-1, -1, -1]) == [0, 24, 64]
    assert window_starts(64, 64, [1]) == [0]
    assert window_starts(8, 4, [1, 1, 1]) == [0, 2, 4]
    generator = torch.Generator().manual_seed(0)
    for length, window in ((128, 64), (33, 16), (23, 8), (256, 64)):
        for _ in range(20):
            moves = (torch.rand(window_count(length, window), generator=generator) * 2 - 1).tolist()
            starts = window_starts(length, window, moves)
            covered = {place for start in starts for place in range(start, start + window)}
            assert covered == set(range(length)), (length, window, starts)


def test_levels():
    assert [level_of((128, 96), tokens) for tokens in (12288, 3072, 768)] == [0, 1, 2]
    assert level_of((15, 9), 8 * 5) == 1
    assert level_of((15, 9), 4 * 3) == 2
    with pytest.raises(ValueError, match="7 tokens"):
        level_of((16, 16), 7)


def test_gaussian():
    impulse = torch.zeros(1, 9, 9, 9)
    impulse[0, 4, 4, 4] = 1
    published = {3: (0.274069, 0.451863), 7: (0.242036, 0.399050)}
    for side, (beside, centre) in published.items():
        filtered = blur(impulse, gaussian(side, 1.0), (3,))
        assert filtered[0, 4, 4, 3:5].tolist() == pytest.approx([beside, centre], abs=1e-5)
        expected = {3: 0.092261, 7: 0.063545}[side]
        assert blur(impulse, gaussian(side, 1.0), (1, 2, 3))[0, 4, 4, 4].item() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(blur(impulse, gaussian(1, 1.0), (2, 3)), impulse)


def fusion(latent, base, **options):
    return ScaleFusion(latent, base, torch.zeros(1, *ScaleFusion.windows(latent, base), 2), **options)


def test_what_is_the_same_locally_and_globally_is_unchanged():
    """Also with windows that overlap unevenly, in strided grids, and at the training size."""
    x = torch.randn(2, 20 * 12, 3, generator=torch.Generator().manual_seed(0))
    for options in ({}, {"strided": True}, {"channels": True}):
        torch.testing.assert_close(fusion((20, 12), (8, 8), **options).fused(lambda part: 2 * part, x), 2 * x)
    mean = lambda part: part + part.mean(1, keepdim=True)  # noqa: E731 (an attention that depends on the whole map)
    torch.testing.assert_close(fusion((20, 12), (20, 12)).fused(mean, x), mean(x))


class Written:
    """Fused self-attention of one image, window by window and head by head."""

    def __init__(self, latent, moves, strided=False):
        self.latent, self.moves, self.strided = latent, moves, strided

    def plain(self, attn, x, context):
        q, k, v = attn.to_q(x), attn.to_k(context), attn.to_v(context)
        width = q.shape[-1] // attn.heads
        parts = [slice(h * width, (h + 1) * width) for h in range(attn.heads)]
        heads = [(q[..., p] @ k[..., p].transpose(1, 2) / width**0.5).softmax(-1) @ v[..., p] for p in parts]
        return attn.to_out[0](torch.cat(heads, -1))

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **kwargs):
        if encoder_hidden_states is not None or self.moves is None:
            return self.plain(
                attn, hidden_states, encoder_hidden_states if encoder_hidden_states is not None else hidden_states
            )
        side = round(hidden_states.shape[1] ** 0.5)
        window = side * 8 // self.latent
        grid = hidden_states.unflatten(1, (side, side))
        total, count = torch.zeros_like(grid), torch.zeros(1, side, side, 1)
        for r in range(3):
            for c in range(3):
                jitter = [round(m * (window // 8)) for m in self.moves[r, c].tolist()]
                top, left = (k * window // 2 + (j if k == 1 else 0) for k, j in zip((r, c), jitter, strict=True))
                part = grid[:, top : top + window, left : left + window]
                attended = self.plain(attn, part.flatten(1, 2), part.flatten(1, 2)).view(part.shape)
                total[:, top : top + window, left : left + window] += attended
                count[:, top : top + window, left : left + window] += 1
        if self.strided:
            everywhere = torch.zeros_like(grid)
            for r in range(2):
                for c in range(2):
                    part = grid[:, r::2, c::2]
                    everywhere[:, r::2, c::2] = self.plain(attn, part.flatten(1, 2), part.flatten(1, 2)).view(
                        part.shape
                    )
        else:
            everywhere = self.plain(attn, hidden_states, hidden_states).view(grid.shape)
        taps = torch.tensor([math.exp(-0.5), 1, math.exp(-0.5)], dtype=grid.dtype)
        kernel = torch.outer(taps, taps) / taps.sum() ** 2
        channels = grid.shape[-1]
        difference = (total / count - everywhere).permute(0, 3, 1, 2)
        low = functional.conv2d(difference, kernel.expand(channels, 1, 3, 3), padding=1, groups=channels)
        return (everywhere + low.permute(0, 2, 3, 1)).flatten(1, 2)


@torch.no_grad()
def slow_freescale(pipe, seed, *, blend=2.0, dilate=True, fuse=True, strided=False):
    """32 -> 64 with five steps, of which four are sampled again."""
    generator, text = torch.Generator().manual_seed(seed), slow.embed(pipe)
    scheduler = slow.scheduler_of(pipe)
    deep = [pipe.unet.get_submodule(name) for name in deep_convolutions(pipe.unet)]
    pipe.unet.set_attn_processor(Written(8, None))
    x, _ = slow.sample(pipe, scheduler, slow.noise_of(generator, 8, 8), scheduler.timesteps.tolist(), text)
    image = functional.interpolate(slow.decode(pipe, x).float(), (64, 64), mode="bicubic", align_corners=False)
    z = slow.encode(pipe, image.double(), generator)
    n = slow.noise_of(generator, 16, 16)
    x = slow.noised(scheduler, z, n, 601)
    for t in range(601, 0, -200):
        c = (0.5 * (1 + math.cos(math.pi * (1000 - t) / 1000))) ** blend if blend else 0.0
        x = (1 - c) * x + c * slow.noised(scheduler, z, n, t)
        moves = torch.rand(3, 3, 2, generator=generator) * 2 - 1 if fuse else None
        pipe.unet.set_attn_processor(Written(16, moves, strided))
        for conv in deep:
            conv.dilation = conv.padding = (2, 2) if dilate and t > 300 else (1, 1)
        x = scheduler.step(slow.guided(pipe, x, t, text, slow.W), t, x).prev_sample
    return x


@pytest.mark.parametrize(
    "options", [{}, {"strided": True, "dilate": False, "blend": None}, {"blend": 1.0, "fuse": False}]
)
def test_latents_equal_the_explicit_loop(pipe, options):
    slow.precise(pipe)
    found = FreeScale(**options).sample(pipe, Request(["a b"], [5], 64, 64, Sampler(slow.STEPS, slow.W)))
    torch.testing.assert_close(found, slow_freescale(pipe, 5, **options), atol=1e-4, rtol=1e-4)


def test_every_option_changes_the_image(tmp_path):
    pipe = tiny_pipeline(tmp_path)
    base = generate(METHOD, pipe, [1], steps=3)
    changes = [{"skip": 0.6}, {"blend": 1.0}, {"blend": None}, {"dilate": False}, {"dilate_until": 20}]
    changes += [{"fuse": False}, {"strided": True}, {"channels": True}, {"freeu": True}, {"space": "latent"}]
    for change in changes:
        assert not np.array_equal(generate(FreeScale(**change), pipe, [1], steps=3), base), change


def test_dilation_follows_each_side(pipe, monkeypatch):
    seen = []
    real = FreeScale.settings
    monkeypatch.setattr(FreeScale, "settings", lambda self, sampling: seen.append(real(self, sampling)) or seen[-1])
    generate(METHOD, pipe, [1], (32, 128), steps=2)
    generate(METHOD, pipe, [1], (128, 128), steps=2)
    factors = [None if s is None else set(s.dilation.values()) for s in seen]
    assert factors == [None, {(1.0, 2.0)}, None, {2.0}, {4.0}]
    assert all(s is None or s.tau == 35 for s in seen)


def test_invalid_options_raise():
    with pytest.raises(ValueError, match="dilate_until"):
        FreeScale(dilate_until=60)
