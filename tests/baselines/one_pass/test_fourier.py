"""FouriScale's filters and SDXL's training sizes: numbers by hand and on waves."""

import math

import pytest
import torch

from baselines.one_pass.fourier import Filter, low_passed, padded_size
from baselines.one_pass.sdxl_sizes import SIZES, enlargement_of

# (cells, scale, floor) -> gain of the strong and the mild filter from frequency 0 on.
PUBLIC = {
    (32, 2, 0): ([1] * 10 + [0.75, 0.5, 0.25, 0, 0, 0], [1] * 10 + [0.875, 0.75, 0.625, 0.5, 0.375, 0.25]),
    (32, 2, 0.6): ([1] * 10 + [0.9, 0.8, 0.7, 0.6, 0.6, 0.6], [1] * 10 + [0.95, 0.9, 0.85, 0.8, 0.75, 0.7]),
    (16, 2, 0): ([1] * 6 + [0.5, 0], [1] * 6 + [0.75, 0.5]),
    (16, 4, 0): ([1] * 4 + [0.5, 0, 0, 0], [1] * 4 + [5 / 6, 4 / 6, 3 / 6, 2 / 6]),
    (8, 2, 0): ([1] * 4, [1] * 4),
    (8, 4, 0): ([1, 1, 1, 0], [1, 1, 1, 2 / 3]),
    (4, 2, 0): ([1] * 2, [1] * 2),
}


@pytest.mark.parametrize(("n", "scale", "floor"), PUBLIC)
def test_public_gains(n, scale, floor):
    for weak, expected in zip((False, True), PUBLIC[n, scale, floor], strict=True):
        found = Filter(scale, floor, weak).ramp(n, torch.arange(float(n // 2)))
        assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_public_gains_of_a_large_map():
    strong, mild = (Filter(4, 0, weak).ramp(64, torch.arange(32.0)) for weak in (False, True))
    assert strong[:10].tolist() == mild[:10].tolist() == [1] * 10
    assert (strong[10], strong[17]) == (0.875, 0)
    assert (float(mild[10]), float(mild[31])) == pytest.approx((0.9583, 0.0833), abs=1e-4)


def wave(n, f, rows=1):
    return torch.cos(2 * math.pi * f * torch.arange(float(n)) / n).expand(1, 1, rows, n)


def test_gain_acts_on_waves():
    """The public code's filter lets pass what its even part does; the symmetric one what the formula says."""
    public = {0: 1, 3: 1, 5: 1, 6: 0.75, 7: 0.25, 8: 0}
    for f, gain in public.items():
        band = Filter(2, one_sided=True)
        torch.testing.assert_close(
            low_passed(wave(16, f, 16), band, (16, 16)), gain * wave(16, f, 16), atol=1e-5, rtol=0
        )
    for f, gain in {0: 1, 5: 1, 6: 0.5, 7: 0, 8: 0}.items():
        found = low_passed(wave(16, f, 16), Filter(2), (16, 16))
        torch.testing.assert_close(found, gain * wave(16, f, 16), atol=1e-5, rtol=0)


def test_what_the_filter_passes_is_unchanged_at_any_size():
    """A constant and slow waves, at even and odd sizes; at scale 1 everything, exactly."""
    for size in ((16, 16), (15, 21)):
        for scale in (2, 2.6, 4):
            slow = 3 + torch.cos(2 * math.pi * torch.arange(float(size[1])) / size[1]).expand(2, 3, *size)
            torch.testing.assert_close(low_passed(slow, Filter(scale), size), slow)
    x = torch.randn(1, 2, 5, 7)
    assert torch.equal(low_passed(x, Filter(1), (8, 8)), x)
    assert low_passed(x, Filter(2), (8, 8), crop=False).shape == (1, 2, 8, 8)


def test_half_precision_is_filtered_in_single():
    x = torch.randn(1, 2, 16, 16).bfloat16()
    found = low_passed(x, Filter(4), (16, 16))
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, low_passed(x.float(), Filter(4), (16, 16)).bfloat16())


def test_public_padding():
    """At 2048x1024 and 1280x1280, of SD's third level."""
    assert padded_size((32, 64), (16, 16)) == (64, 64)
    assert padded_size((40, 40), (16, 16)) == (48, 48)
    assert padded_size((32, 32), (16, 16)) == (32, 32)


def test_public_training_sizes_of_sdxl():
    assert len(SIZES) == 40
    public = {
        (2048, 2048): (1024, 1024, 2),
        (2048, 4096): (704, 1408, 3),
        (4096, 2048): (1408, 704, 3),
        (4096, 4096): (1024, 1024, 4),
        (2560, 2560): (896, 1088, 3),
        (1664, 2432): (832, 1216, 2),
        (1536, 2048): (832, 1152, 2),
        (2048, 1536): (1024, 960, 2),
    }
    for size, expected in public.items():
        found = enlargement_of(*size, first=True)
        assert (found.height, found.width, found.factor) == expected


def test_of_equal_training_sizes_the_closest_aspect_is_taken():
    for size, expected in {(2560, 2560): (960, 1024), (2048, 1536): (1152, 832), (2048, 2048): (1024, 1024)}.items():
        found = enlargement_of(*size)
        assert (found.height, found.width) in (expected, expected[::-1])
    half = enlargement_of(1024, 1024, side=512)
    assert (half.height, half.width, half.factor) == (512, 512, 2)
    assert enlargement_of(512, 4096).factor == 2  # no training size fits both sides alike
