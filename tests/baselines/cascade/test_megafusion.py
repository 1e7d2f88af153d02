"""MegaFusion against its published schedule and an explicit loop."""

import numpy as np
import pytest
import torch

from baselines.cascade.megafusion import MegaFusion
from baselines.method import Request, Sampler
from tests.baselines.cascade import slow
from tests.tiny import generate, tiny_sdxl_pipeline


def test_published_schedules_and_costs(pipe, tmp_path, planned_pairs):
    """SD 1.5: 512, 768, 1024 with 40, 5 and 5 calls; SDXL: two sizes with 40 and 10."""
    method = MegaFusion()
    sizes = method.sizes(pipe, (512, 512), (1024, 1024))
    assert sizes == [(512, 512), (768, 768), (1024, 1024)]
    timesteps = [part.trajectory(pipe.scheduler).timesteps.tolist() for part in method.parts(pipe, sizes, 50)]
    assert timesteps == [list(range(981, 200, -20)), [181, 161, 141, 121, 101], [81, 61, 41, 21, 1]]
    assert planned_pairs(method, pipe, 2, 2) == 71.25
    sdxl = tiny_sdxl_pipeline(tmp_path / "sdxl")
    assert method.sizes(sdxl, (1024, 1024), (2048, 2048)) == [(1024, 1024), (2048, 2048)]
    assert planned_pairs(method, sdxl, 2, 2) == 80
    assert (planned_pairs(method, pipe, 4, 4), planned_pairs(method, sdxl, 4, 4)) == (151.25, 200)


@torch.no_grad()
def slow_megafusion(pipe, seed, starts, sizes, *, reschedule=False, dilate=False):
    generator, text = torch.Generator().manual_seed(seed), slow.embed(pipe)
    x, clean = slow.noise_of(generator, 8, 8), None
    grid = slow.scheduler_of(pipe).timesteps.tolist()
    middle = [conv for resnet in pipe.unet.mid_block.resnets for conv in (resnet.conv1, resnet.conv2)]
    for index, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        scheduler = slow.scheduler_of(pipe)
        if reschedule:
            ratio = (size / sizes[0]) ** 2
            alphas = scheduler.alphas_cumprod.double()
            snr = alphas / (1 - alphas) / ratio
            scheduler.alphas_cumprod = snr / (1 + snr)
            scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
        if index:
            z = slow.encode(pipe, slow.pillow_enlarged(slow.decode(pipe, clean), size), generator)
            x = slow.noised(scheduler, z, slow.noise_of(generator, size // 4, size // 4), grid[start])
        for conv in middle:
            conv.dilation = conv.padding = (2, 2) if dilate and index else (1, 1)
        x, clean = slow.sample(pipe, scheduler, x, grid[start : [*starts, len(grid)][index + 1]], text)
    for conv in middle:
        conv.dilation = conv.padding = (1, 1)
    return x


@pytest.mark.parametrize(
    ("options", "starts", "sizes"),
    [
        ({}, [0, 3, 4], [32, 48, 64]),
        ({"truncate": 0.6, "dilate": True, "count": 2}, [0, 3], [32, 64]),
        ({"reschedule": True, "count": 2}, [0, 4], [32, 64]),
    ],
)
def test_latents_equal_the_explicit_loop(pipe, options, starts, sizes):
    slow.precise(pipe)
    parts = {name: options[name] for name in ("reschedule", "dilate") if name in options}
    expected = slow_megafusion(pipe, 5, starts, sizes, **parts)
    request = Request(["a b"], [5], 64, 64, Sampler(slow.STEPS, slow.W))
    found = MegaFusion(**options).sample(pipe, request)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_every_option_changes_the_image(pipe):
    base = generate(MegaFusion(), pipe, [1], steps=5)
    for change in ({"truncate": 0.5}, {"reschedule": True}, {"dilate": True}, {"count": 2}):
        assert not np.array_equal(generate(MegaFusion(**change), pipe, [1], steps=5), base), change
    with pytest.raises(ValueError, match="truncate is a share"):
        MegaFusion(truncate=0)
