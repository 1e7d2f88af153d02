"""RectifiedHR against its published ladders and an explicit loop."""

import numpy as np
import pytest
import torch

from baselines.cascade.rectifiedhr import RectifiedHR
from baselines.method import Request, Sampler
from tests.baselines.cascade import slow
from tests.tiny import generate

METHOD = RectifiedHR()


def ladder(pipe, base, target, scale=5.0):
    sizes = METHOD.sizes(pipe, base, target)
    parts = METHOD.parts(pipe, sizes, 50)
    timesteps = [part.trajectory(pipe.scheduler).timesteps.tolist() for part in parts]
    return sizes, timesteps, [METHOD.guidance(i, sizes, scale) for i in range(len(sizes))]


def test_published_ladders(pipe):
    sizes, timesteps, guidance = ladder(pipe, (1024, 1024), (2048, 2048))
    assert sizes == [(1024, 1024), (2048, 2048)]
    assert timesteps == [list(range(981, 400, -20)), list(range(381, 0, -20))]
    assert guidance == [5, 30]
    sizes, timesteps, guidance = ladder(pipe, (1024, 1024), (4096, 4096))
    assert sizes == [(1024, 1024), (2560, 2560), (4096, 4096)]
    assert timesteps == [list(range(981, 200, -20)), list(range(181, 60, -20)), [41, 21, 1]]
    assert guidance == pytest.approx([5, 5 + 45 / 2**0.5, 50])
    sizes, timesteps, guidance = ladder(pipe, (1536, 768), (4096, 2048))
    assert sizes == [(1536, 768), (2816, 1408), (4096, 2048)]
    assert [len(part) for part in timesteps] == [40, 5, 5]
    assert guidance == [5, 27.5, 50]


def test_published_costs(pipe, planned_pairs):
    assert planned_pairs(METHOD, pipe, 2, 2) == 110
    assert planned_pairs(METHOD, pipe, 4, 4) == 131.75


@torch.no_grad()
def slow_rectifiedhr(pipe, seed, method, starts, sizes, scales):
    generator, text = torch.Generator().manual_seed(seed), slow.embed(pipe)
    scheduler = slow.scheduler_of(pipe)
    x, clean = slow.noise_of(generator, sizes[0] // 4, sizes[0] // 4), None
    grid = scheduler.timesteps.tolist()
    for index, (start, size, w) in enumerate(zip(starts, sizes, scales, strict=True)):
        stop = [*starts, len(grid)][index + 1]
        if index:
            z = slow.encode(pipe, slow.pillow_enlarged(slow.decode(pipe, clean), size))
            x = slow.noised(scheduler, z, slow.noise_of(generator, size // 4, size // 4), grid[start])
        x, clean = slow.sample(pipe, scheduler, x, grid[start:stop], text, w)
    return x


@pytest.mark.parametrize(
    ("method", "side", "starts", "sizes", "scales"),
    [
        (METHOD, 64, [0, 3], [32, 64], [4, 24]),
        (RectifiedHR(refresh=0.4, guidance_ratio=2), 64, [0, 2], [32, 64], [4, 8]),
        (METHOD, 128, [0, 3, 4], [32, 80, 128], [4, 4 + 36 / 2**0.5, 40]),
    ],
)
def test_latents_equal_the_explicit_loop(pipe, method, side, starts, sizes, scales):
    slow.precise(pipe)
    expected = slow_rectifiedhr(pipe, 5, method, starts, sizes, scales)
    found = method.sample(pipe, Request(["a b"], [5], side, side, Sampler(slow.STEPS, slow.W)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_every_option_changes_the_image(pipe):
    base = generate(METHOD, pipe, [1], (128, 64), steps=16)
    changes = [{"refresh": 0.5}, {"refresh_power": 2}, {"guidance_ratio": 1}, {"guidance_power": 3}, {"count": 2}]
    for change in changes:
        assert not np.array_equal(generate(RectifiedHR(**change), pipe, [1], (128, 64), steps=16), base), change


def test_description_resolves_what_is_chosen(pipe):
    described = METHOD.describe(pipe, 128, 128)
    assert described == {
        "refresh": 0.8,
        "refresh_power": 0.5,
        "guidance_ratio": 10,
        "guidance_power": 0.5,
        "sizes": [[32, 32], [80, 80], [128, 128]],
    }


def test_too_few_steps_raise_before_sampling(pipe):
    with pytest.raises(ValueError, match="at least 3 steps"):
        generate(METHOD, pipe, [1], (128, 128), steps=2)
    with pytest.raises(ValueError, match="refresh is a share"):
        RectifiedHR(refresh=1.0)
