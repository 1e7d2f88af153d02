"""Re-dilation against explicit loops over the paper's formulas."""

import math

import pytest
import torch
from torch.nn import functional as F

from scalecrafter import redilated_conv2d


def slow_dilated(x, weight, bias, d, stride):
    """Sum over taps of w[tap] x[position + d (tap - centre)], zero outside; d is one factor or two."""
    down, right = d if isinstance(d, tuple) else (d, d)
    n, _, height, width = x.shape
    out_channels, _, k, _ = weight.shape
    y = torch.zeros(n, out_channels, math.ceil(height / stride), math.ceil(width / stride), dtype=x.dtype)
    for row in range(y.shape[2]):
        for column in range(y.shape[3]):
            for i in range(k):
                for j in range(k):
                    r, c = row * stride + down * (i - k // 2), column * stride + right * (j - k // 2)
                    if 0 <= r < height and 0 <= c < width:
                        y[:, :, row, column] += x[:, :, r, c] @ weight[:, :, i, j].T
    return y + bias.view(1, -1, 1, 1)


def slow_bilinear(x, height, width):
    """Bilinear resize with pixel centres at half-integers, edges clamped."""

    def taps(size_in, size_out):
        matrix = torch.zeros(size_out, size_in, dtype=x.dtype)
        for i in range(size_out):
            position = min(max((i + 0.5) * size_in / size_out - 0.5, 0.0), size_in - 1.0)
            low = int(position)
            high = min(low + 1, size_in - 1)
            matrix[i, low] += 1 - (position - low)
            matrix[i, high] += position - low
        return matrix

    return taps(x.shape[2], height) @ x @ taps(x.shape[3], width).T


def random_case(height, width, k=3):
    generator = torch.Generator().manual_seed(height * 100 + width)
    x = torch.randn(2, 3, height, width, generator=generator)
    weight, bias = torch.randn(4, 3, k, k, generator=generator), torch.randn(4, generator=generator)
    return x, weight, bias


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("d", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), [(9, 7), (6, 12)])
def test_integer_factors(height, width, d, stride):
    x, weight, bias = random_case(height, width)
    expected = slow_dilated(x.double(), weight.double(), bias.double(), d, stride)
    torch.testing.assert_close(
        redilated_conv2d(x, weight, bias, dilation=d, stride=stride).double(), expected, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("d", [2.5, 3.2, 0.75, (1.5, 3), (2, 1.2), (4, 1)])
@pytest.mark.parametrize(("height", "width"), [(9, 7), (6, 12)])
def test_fractional_factors_and_two_factors(height, width, d, stride):
    x, weight, bias = (t.double() for t in random_case(height, width))
    down, right = d if isinstance(d, tuple) else (d, d)
    enlarged = slow_bilinear(x, round(math.ceil(down) / down * height), round(math.ceil(right) / right * width))
    y = slow_dilated(enlarged, weight, bias, (math.ceil(down), math.ceil(right)), stride)
    expected = slow_bilinear(y, math.ceil(height / stride), math.ceil(width / stride))
    actual = redilated_conv2d(x.float(), weight.float(), bias.float(), dilation=d, stride=stride)
    torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=1e-5)


def test_factor_one_equals_the_plain_convolution_bit_for_bit():
    x, weight, bias = random_case(9, 8)
    assert torch.equal(redilated_conv2d(x, weight, bias, dilation=1), F.conv2d(x, weight, bias, padding=1))


def test_integer_factors_never_interpolate(monkeypatch):
    monkeypatch.setattr(F, "interpolate", None)
    x, weight, bias = random_case(8, 8)
    redilated_conv2d(x, weight, bias, dilation=3.0)
    redilated_conv2d(x, weight, bias, dilation=(2.0, 4), stride=2)


def test_larger_kernel():
    x, weight, bias = random_case(11, 10, k=5)
    expected = slow_dilated(x, weight, bias, 2, 1)
    torch.testing.assert_close(redilated_conv2d(x, weight, bias, dilation=2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("k", "d", "message"), [(3, 0, "above 0"), (3, float("nan"), "above 0"), (3, (2, -1), "above 0"), (2, 2, "odd")]
)
def test_invalid_factors_and_kernels_raise(k, d, message):
    x, weight, bias = random_case(8, 8, k=k)
    with pytest.raises(ValueError, match=message):
        redilated_conv2d(x, weight, bias, dilation=d)
