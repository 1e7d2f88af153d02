"""The dispersion transform against loops written from its definition, and against recorded values."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from scalecrafter import disperse_kernel, dispersion_transform


def slow_convolution(x, kernel):
    """Cross-correlation of a 2-d map with a 2-d kernel, zero padding, same size."""
    radius = len(kernel) // 2
    y = np.zeros_like(x)
    for r, c in np.ndindex(*x.shape):
        for i, j in np.argwhere(kernel):
            row, column = r + i - radius, c + j - radius
            if 0 <= row < x.shape[0] and 0 <= column < x.shape[1]:
                y[r, c] += kernel[i, j] * x[row, column]
    return y


def slow_enlargement(x, side):
    """Bilinear with aligned corners."""
    y = np.zeros((side, side))
    for r, c in np.ndindex(side, side):
        v, h = r * (len(x) - 1) / (side - 1), c * (len(x) - 1) / (side - 1)
        for i, j in np.argwhere(x):
            y[r, c] += max(0.0, 1 - abs(v - i)) * max(0.0, 1 - abs(h - j)) * x[i, j]
    return y


def unit(side, index):
    kernel = np.zeros(side * side)
    kernel[index] = 1
    return kernel.reshape(side, side)


def slow_transform(k, m, n, scale, eta):
    """Normal equations of the stacked errors, one unit kernel and one unit map at a time."""
    side = scale * (n - 1) + 1

    def errors(x, kernels, small_kernel):
        """One column for each unit kernel: its structure part, then its pixel part."""
        columns, large = [], slow_enlargement(x, side)
        for kernel in kernels:
            if small_kernel:
                structure = slow_enlargement(slow_convolution(x, kernel), side)
            else:
                structure = slow_convolution(large, kernel)
            columns.append(np.concatenate([structure.ravel(), eta * slow_convolution(x, kernel).ravel()]))
        return np.stack(columns, axis=1)

    maps = [unit(n, p) for p in range(n * n)]
    left = [errors(x, [unit(m, i) for i in range(m * m)], small_kernel=False) for x in maps]
    right = [errors(x, [unit(k, j) for j in range(k * k)], small_kernel=True) for x in maps]
    a, b = np.concatenate(left), np.concatenate(right)
    return np.linalg.solve(a.T @ a, a.T @ b)


@pytest.mark.parametrize(
    ("k", "m", "n", "scale", "eta"),
    [
        (3, 5, 3, 2, 0.05),
        (3, 5, 3, 2, 0.5),
        (3, 5, 4, 2, 0.05),
        (3, 7, 3, 3, 0.05),
        (1, 3, 3, 2, 0.05),
        (5, 7, 3, 2, 0.1),
    ],
)
def test_transform_is_the_least_squares_solution(k, m, n, scale, eta):
    transform = dispersion_transform(k, m, n, scale, eta)
    assert transform.shape == (m * m, k * k)
    assert transform.dtype == torch.float64
    np.testing.assert_allclose(transform.numpy(), slow_transform(k, m, n, scale, eta), atol=1e-10)


def test_values_of_the_released_transform():
    """Recorded from R20to1_new.mat of the public code (key R): column sums, range, and the centre column."""
    transform = dispersion_transform()
    sums = transform.sum(0).view(3, 3)
    for (i, j), value in np.ndenumerate(sums.numpy()):
        assert value == pytest.approx({0: 1.0, 1: 1.0613, 2: 1.1267}[abs(i - 1) + abs(j - 1)], abs=5e-5)
    assert transform.min() == pytest.approx(-0.143, abs=5e-4)
    assert transform.max() == pytest.approx(1.0)
    torch.testing.assert_close(transform[:, 4], torch.eye(25, dtype=torch.float64)[12])


def test_transform_has_the_symmetries_of_the_square():
    transform = dispersion_transform().view(5, 5, 3, 3)
    torch.testing.assert_close(transform, transform.flip(0, 2))
    torch.testing.assert_close(transform, transform.permute(1, 0, 3, 2))


def test_each_parameter_changes_the_transform():
    base = dispersion_transform(3, 7, 3, 3, 0.05)
    for other in [(3, 7, 4, 3, 0.05), (3, 7, 3, 2, 0.05), (3, 7, 3, 3, 0.5)]:
        assert not torch.allclose(base, dispersion_transform(*other))


def test_cached_transform_cannot_be_modified():
    dispersion_transform().zero_()
    assert dispersion_transform().abs().sum() > 0


def test_dispersed_kernel_responds_to_the_enlarged_image_as_the_kernel_to_the_small_one():
    """On smooth images the response to the enlarged image is the enlarged response; the plain kernel is far off."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, 3, 3, generator=generator, dtype=torch.float64)
    small = F.interpolate(torch.randn(1, 3, 7, 7, generator=generator, dtype=torch.float64), (21, 21), mode="bicubic")
    large = F.interpolate(small, (41, 41), mode="bilinear", align_corners=True)
    wanted = F.interpolate(F.conv2d(small, weight, padding=1), (41, 41), mode="bilinear", align_corners=True)
    dispersed = F.conv2d(large, disperse_kernel(weight, dispersion_transform()), padding=2)
    plain = F.conv2d(large, weight, padding=1)
    inner = (..., slice(4, -4), slice(4, -4))
    errors = [(y[inner] - wanted[inner]).square().mean() for y in (dispersed, plain)]
    assert errors[0] < 0.2 * errors[1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_kernels_are_dispersed_one_by_one_in_their_own_dtype(dtype):
    weight = torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    transform = dispersion_transform()
    large = disperse_kernel(weight, transform)
    assert large.dtype == dtype
    assert large.shape == (2, 3, 5, 5)
    for o, i in itertools.product(range(2), range(3)):
        expected = (transform @ weight[o, i].double().flatten()).view(5, 5).to(dtype)
        torch.testing.assert_close(large[o, i], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 5), "odd side"),
        ((5, 3), "odd side"),
        ((3, 5, 1), "feature_size 1"),
        ((3, 5, 3, 1.3), "scale 1.3"),
        ((3, 5, 3, 2, -1), "eta"),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        dispersion_transform(*arguments)


def test_transform_for_another_kernel_size_raises():
    with pytest.raises(ValueError, match="kernels of 9 taps, not 5x5"):
        disperse_kernel(torch.zeros(1, 1, 5, 5), dispersion_transform())
