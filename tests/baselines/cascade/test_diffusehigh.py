"""DiffuseHigh against its published constants, its wavelet as explicit sums, and an explicit loop."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from baselines.cascade.diffusehigh import WAVELETS, DiffuseHigh, filtered, low_band, restored, sharpened, with_low_band
from baselines.method import Request, Sampler
from tests.baselines.cascade import slow
from tests.tiny import generate


def test_published_schedule_and_costs(pipe, planned_pairs):
    method = DiffuseHigh()
    assert method.sizes(pipe, (1024, 1024), (2048, 2048)) == [(1024, 1024), (1536, 1536), (2048, 2048)]
    assert [s[0] for s in method.sizes(pipe, (1024, 1024), (4096, 4096))] == [1024, 2048, 3072, 4096]
    parts = method.parts(pipe, [(32, 32), (64, 64)], 50)
    assert parts[1].trajectory(pipe.scheduler).timesteps.tolist() == list(range(281, 0, -20))
    assert planned_pairs(method, pipe, 2, 2) == 143.75
    assert planned_pairs(method, pipe, 4, 4) == 485
    assert [method.guidance(i, [(1, 1)] * 2, 5.0) for i in (0, 1)] == [5, 10]


def test_wavelet_filters():
    for taps in WAVELETS.values():
        assert sum(taps) == pytest.approx(math.sqrt(2))
        assert sum(tap**2 for tap in taps) == pytest.approx(1)
        for shift in range(2, len(taps), 2):
            assert sum(a * b for a, b in zip(taps, taps[shift:], strict=False)) == pytest.approx(0, abs=1e-12)
    published = [0.230378, 0.714847, 0.630881, -0.027984, -0.187035, 0.030841, 0.032883, -0.010597]
    assert WAVELETS["db4"] == pytest.approx(published, abs=1e-6)


def matrices(length, taps):
    """(low, high) analysis matrices of one level with mirrored borders, and the inverse's, from the definition."""
    count, last = (length + len(taps) - 1) // 2, len(taps) - 1
    high_taps = [(-1) ** m * taps[last - m] for m in range(last + 1)]
    analysis, synthesis = (torch.zeros(2, *size, dtype=torch.float64) for size in ((count, length), (length, count)))
    for band, filter_taps in enumerate((taps, high_taps)):
        for i in range(count):
            for m, tap in enumerate(filter_taps):
                place = 2 * i + m - (last - 1)
                if 0 <= place < length:
                    synthesis[band, place, i] += tap
                place %= 2 * length
                analysis[band, i, place if place < length else 2 * length - 1 - place] += tap
    return analysis, synthesis


@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize("size", [(16, 24), (12, 10), (13, 16)])
def test_low_band_is_exchanged_as_in_four_bands(wavelet, size):
    generator = torch.Generator().manual_seed(0)
    x, other = torch.randn(2, 1, 2, *size, generator=generator, dtype=torch.float64).unbind()
    taps = WAVELETS[wavelet]
    (rows, rows_back), (columns, columns_back) = (matrices(side, taps) for side in size)
    bands = {(v, h): rows[v] @ x @ columns[h].T for v in (0, 1) for h in (0, 1)}
    inverse = sum(rows_back[v] @ band @ columns_back[h].T for (v, h), band in bands.items())
    torch.testing.assert_close(inverse, x)
    torch.testing.assert_close(low_band(x, wavelet), bands[0, 0])
    bands[0, 0] = rows[0] @ other @ columns[0].T
    expected = sum(rows_back[v] @ band @ columns_back[h].T for (v, h), band in bands.items())
    torch.testing.assert_close(with_low_band(x, low_band(other, wavelet), wavelet), expected)
    torch.testing.assert_close(with_low_band(x, low_band(x, wavelet), wavelet), x)


def test_low_band_of_a_constant_and_lengths():
    torch.testing.assert_close(low_band(torch.full((1, 1, 16, 20), 0.3), "db4"), torch.full((1, 1, 11, 13), 0.6))
    taps = WAVELETS["db4"]
    assert [filtered(torch.zeros(1, 1, 1, n), taps, -1).shape[-1] for n in (2048, 256)] == [1027, 131]
    assert restored(torch.zeros(1, 1, 1, 131), taps, -1, 256).shape[-1] == 256


def test_sharpening():
    flat = torch.full((1, 3, 9, 9), 0.4)
    torch.testing.assert_close(sharpened(flat, 1.0, 1.0), flat)
    impulse = torch.zeros(1, 1, 9, 9)
    impulse[0, 0, 4, 4] = 1
    for sigma, centre in ((1.0, 1.795820), (2.0, 1.869201), (0.1, 1.0)):
        assert sharpened(impulse, 1.0, sigma)[0, 0, 4, 4].item() == pytest.approx(centre, abs=5e-6)
    assert sharpened(impulse, 1.0, 1.0)[0, 0, 4, 3].item() == pytest.approx(-0.274069 * 0.451863, abs=2e-6)


@torch.no_grad()
def slow_diffusehigh(pipe, seed, options):
    """32 -> 48 -> 64 with five steps: two in each later stage, the first of them guided."""
    generator, text = torch.Generator().manual_seed(seed), slow.embed(pipe)
    scheduler = slow.scheduler_of(pipe)
    x, _ = slow.sample(pipe, scheduler, slow.noise_of(generator, 8, 8), scheduler.timesteps.tolist(), text)
    wavelet, in_rgb = options.get("wavelet", "db4"), options.get("space", "rgb") == "rgb"
    for size in (48, 64):
        sigma = 0.1 + 1.9 * torch.rand((), generator=generator).item()
        image = slow.decode(pipe, x).float().clamp(-1, 1)
        image = functional.interpolate(image, (size, size), mode="bicubic", align_corners=False)
        row = torch.tensor([math.exp(-0.5 * (d / sigma) ** 2) for d in (-1, 0, 1)])
        kernel = (torch.outer(row, row) / row.sum() ** 2).expand(3, 1, 3, 3)
        blurred = functional.conv2d(functional.pad(image, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)
        image = (2 * image - blurred).double()
        z = slow.encode(pipe, image)
        reference = image if in_rgb else z
        rows, rows_back = matrices(reference.shape[-1], WAVELETS[wavelet])
        kept = rows[0] @ reference @ rows[0].T
        x = slow.noised(scheduler, z, slow.noise_of(generator, size // 4, size // 4), 201)
        for t in (201, 1):
            e = slow.guided(pipe, x, t, text, 2 * slow.W)
            if t > 200:
                clean = slow.clean_of(scheduler, x, e, t)
                values = slow.decode(pipe, clean).clamp(-1, 1) if in_rgb else clean
                bands = {(v, h): rows[v] @ values @ rows[h].T for v in (0, 1) for h in (0, 1)} | {(0, 0): kept}
                values = sum(rows_back[v] @ band @ rows_back[h].T for (v, h), band in bands.items())
                clean = slow.encode(pipe, values) if in_rgb else values
                alpha = float(scheduler.alphas_cumprod[t])
                e = (x - alpha**0.5 * clean) / (1 - alpha) ** 0.5
            x = scheduler.step(e, t, x).prev_sample
    return x


@pytest.mark.parametrize("options", [{}, {"space": "latent", "wavelet": "haar"}])
def test_latents_equal_the_explicit_loop(pipe, options):
    slow.precise(pipe)
    expected = slow_diffusehigh(pipe, 5, options)
    found = DiffuseHigh(**options).sample(pipe, Request(["a b"], [5], 64, 64, Sampler(slow.STEPS, slow.W)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_every_option_changes_the_image(pipe):
    base = generate(DiffuseHigh(), pipe, [1], steps=5)
    changes = [{"skip": 0.5}, {"guided": 0.7}, {"sharpen": 0.0}, {"guidance_ratio": 1.0}, {"wavelet": "haar"}]
    for change in [*changes, {"space": "latent"}, {"count": 2}]:
        assert not np.array_equal(generate(DiffuseHigh(**change), pipe, [1], steps=5), base), change
    for change in ({"guided": 0.5}, {"skip": 1.0}):
        with pytest.raises(ValueError, match="are shares"):
            DiffuseHigh(**change)
    with pytest.raises(ValueError, match="db4 or haar"):
        DiffuseHigh(wavelet="sym4")
