"""FreCaS against its published timesteps, and an explicit loop with attention written out head by head."""

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, LMSDiscreteScheduler
from torch.nn import functional

from baselines.cascade.frecas import FreCaS, evenly, lowered, next_start, shared_calls
from baselines.cascade.parts import Part
from baselines.method import Request, Sampler
from tests.baselines.cascade import slow
from tests.tiny import generate, tiny_pipeline, tiny_sdxl_pipeline

METHOD = FreCaS()


@pytest.fixture
def pipe(tmp_path):
    """With attention at every level that Stable Diffusion has it."""
    return tiny_pipeline(tmp_path / "sd15", "sd15")


def test_published_starts(pipe):
    """Of SD 2.1 at 1024 and 2048 and of SDXL at 2048 and 4096."""
    alphas = pipe.scheduler.alphas_cumprod
    cases = {(100, 3.0): 346, (200, 3.0): 500, (200, 1.5): 343, (400, 2.0): 606, (200, 2.0): 395}
    assert {case: next_start(alphas, case[0], 0.5 ** case[1]) for case in cases} == cases
    assert float(alphas[343]) <= 0.519660 < float(alphas[342])


def test_published_timesteps_and_costs(pipe, tmp_path, planned_pairs):
    sdxl = tiny_sdxl_pipeline(tmp_path / "sdxl")
    first, second = (part.timesteps for part in METHOD.parts(sdxl, [(32, 32), (64, 64)], 50))
    assert first[:5] == (999, 978, 958, 937, 917)
    assert first[-2:] == (220, 200)
    assert second == (343, 304, 266, 228, 190, 152, 114, 76, 38, 0)
    assert planned_pairs(METHOD, sdxl, 2, 2) == 80
    assert planned_pairs(METHOD, sdxl, 4, 4) == 290
    assert planned_pairs(METHOD, pipe, 2, 2) == 80
    assert planned_pairs(METHOD, pipe, 4, 4) == 30 + 10 * 4 + 10 * 16
    three = METHOD.parts(sdxl, [(32, 32), (64, 64), (128, 128)], 50)
    assert [(part.timesteps[0], part.timesteps[-1], len(part.timesteps)) for part in three] == [
        (999, 400, 30),
        (606, 200, 5),
        (395, 0, 15),
    ]
    assert METHOD.parts(pipe, [(32, 32)], 50) == [Part(50)]


def test_calls_are_shared_in_the_published_proportions():
    assert shared_calls((40, 10), 25) == [20, 5]
    assert sum(shared_calls((30, 5, 15), 25)) == 25
    for steps in (3, 4, 7):
        counts = shared_calls((30, 5, 15), steps)
        assert sum(counts) == steps
        assert min(counts) >= 1
    with pytest.raises(ValueError, match="at least 3 steps, not 2"):
        shared_calls((30, 5, 15), 2)
    assert evenly(3, 0, 7) == (3, 2, 1, 0)


def test_low_frequencies_are_those_that_survive_resizing():
    flat = torch.full((1, 1, 8, 8), 0.7)
    torch.testing.assert_close(lowered(flat, (4, 4)), flat)
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)[None, None]
    torch.testing.assert_close(lowered(board, (4, 4)), torch.zeros_like(board))
    impulse = torch.zeros(1, 1, 8, 8)
    impulse[0, 0, 3, 3] = 1
    assert lowered(impulse, (4, 4))[0, 0, 3, 3].item() == pytest.approx(0.140625)


class Written:
    """Cross-attention head by head, which collects its map or mixes another one in."""

    def __init__(self, latent, weight, maps=None, collected=None):
        self.latent, self.weight, self.maps, self.collected = latent, weight, maps, collected

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **kwargs):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        width = q.shape[-1] // attn.heads
        heads, maps = [], []
        for h in range(attn.heads):
            part = slice(h * width, (h + 1) * width)
            weights = (q[..., part] @ k[..., part].transpose(1, 2) / width**0.5).softmax(-1)
            maps.append(weights)
            heads.append(weights @ v[..., part])
        output = torch.cat(heads, -1)
        if encoder_hidden_states is not None:
            side = round(hidden_states.shape[1] ** 0.5)
            own = sum(maps) / len(maps)
            if self.collected is not None:
                self.collected.append(own.transpose(1, 2).unflatten(2, (side, side)))
            if self.maps is not None:
                given = functional.interpolate(self.maps, (side, side), mode="bilinear")
                output = (1 - self.weight) * output + self.weight * given.flatten(2).transpose(1, 2) @ v
        return attn.to_out[0](output)


def averaged(collected):
    """Over layers of one size, then over sizes."""
    sides = sorted({m.shape[-1] for m in collected}, reverse=True)
    means = [torch.stack([m for m in collected if m.shape[-1] == side]).mean(0) for side in sides]
    return sum(functional.interpolate(m, (sides[0], sides[0]), mode="bilinear") for m in means) / len(sides)


def ddim(scheduler, x, e, t, later):
    clean = slow.clean_of(scheduler, x, e, t)
    return clean if later is None else slow.noised(scheduler, clean, e, later)


@torch.no_grad()
def slow_frecas(pipe, seed, sizes, timesteps, *, ratio, weight):
    generator, text = torch.Generator().manual_seed(seed), slow.embed(pipe)
    scheduler, maps, clean = slow.scheduler_of(pipe), None, None
    x = slow.noise_of(generator, sizes[0] // 4, sizes[0] // 4)
    for index, (size, listed) in enumerate(zip(sizes, timesteps, strict=True)):
        if index:
            image = slow.decode(pipe, clean).float().clamp(-1, 1).double()
            image = functional.interpolate(image, (size, size), mode="nearest")
            z = slow.encode(pipe, image, generator)
            x = slow.noised(scheduler, z, slow.noise_of(generator, size // 4, size // 4), listed[0])
        for place, t in enumerate(listed):
            last = place == len(listed) - 1
            collected = [] if last and index < len(sizes) - 1 else None
            pipe.unet.set_attn_processor(Written(size // 4, weight, maps, collected))
            uncond, cond = pipe.unet(torch.cat([x] * 2), t, text).sample.chunk(2)
            e = uncond + slow.W * (cond - uncond)
            if index:
                small = functional.interpolate(cond - uncond, (sizes[index - 1] // 4,) * 2, mode="bilinear")
                low = functional.interpolate(small, (size // 4,) * 2, mode="bilinear")
                e = uncond + slow.W * low + ratio * slow.W * (cond - uncond - low)
            clean = slow.clean_of(scheduler, x, e, t)
            x = ddim(scheduler, x, e, t, None if last else listed[place + 1])
            if collected is not None:
                maps = averaged(collected)
    return x


@pytest.mark.parametrize(
    ("options", "side", "sizes", "ends", "calls", "values"),
    [
        ({}, 64, [32, 64], [(999, 100), (346, 0)], [4, 1], {"ratio": 6, "weight": 0.6}),
        ({}, 128, [32, 64, 128], [(999, 200), (500, 200), (500, 0)], [3, 1, 1], {"ratio": 35 / 7.5, "weight": 0.4}),
        (
            {"guidance_ratio": 1, "map_weight": 0.0, "gamma": 1.5, "ends": [200, 0], "calls_of_50": [20, 30]},
            64,
            [32, 64],
            [(999, 200), (343, 0)],
            [2, 3],
            {"ratio": 1, "weight": 0},
        ),
    ],
)
def test_latents_equal_the_explicit_loop(pipe, options, side, sizes, ends, calls, values):
    slow.precise(pipe)
    found = FreCaS(**options).sample(pipe, Request(["a b"], [5], side, side, Sampler(slow.STEPS, slow.W)))
    timesteps = [[int(t) for t in np.linspace(*each, count)] for each, count in zip(ends, calls, strict=True)]
    expected = slow_frecas(pipe, 5, sizes, timesteps, **values)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_every_option_changes_the_image(tmp_path):
    pipe = tiny_pipeline(tmp_path)
    base = generate(METHOD, pipe, [1], steps=5)
    changes = [{"gamma": 1.0}, {"guidance_ratio": 1.0}, {"map_weight": 0.0}, {"ends": [300, 0]}]
    for change in [*changes, {"calls_of_50": [20, 30]}, {"count": 3}]:
        assert not np.array_equal(generate(FreCaS(**change), pipe, [1], steps=5), base), change


def test_schedulers_that_take_timesteps_run_and_others_are_refused(pipe):
    for scheduler in (EulerDiscreteScheduler, DPMSolverMultistepScheduler):
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
        assert generate(METHOD, pipe, [1], steps=6).shape == (1, 64, 64, 3)
    pipe.scheduler = LMSDiscreteScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(ValueError, match="does not take a list of timesteps"):
        METHOD.describe(pipe, 64, 64)


def test_plans_exist_for_two_and_three_sizes(pipe):
    with pytest.raises(ValueError, match="no published plan for 4 sizes"):
        METHOD.describe(pipe, 256, 256)
    own = FreCaS(ends=[400, 300, 200, 0], calls_of_50=[20, 10, 10, 10])
    assert len(own.describe(pipe, 256, 256)["sizes"]) == 4
    assert METHOD.describe(pipe, 64, 64) == {
        "ends": [100, 0],
        "calls_of_50": [40, 10],
        "gamma": 3.0,
        "guidance_ratio": 6.0,
        "map_weight": 0.6,
        "sizes": [[32, 32], [64, 64]],
    }
