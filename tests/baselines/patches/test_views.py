"""Dilated views, their filter, and permutations across them."""

import pytest
import torch
from torch.nn import functional

from baselines.cascade.images import blur, gaussian
from baselines.patches.views import (
    blurred,
    dilated_views,
    interleave,
    pad_to_multiple,
    permutations,
    statistics,
    with_statistics,
)

# Weights from the centre outwards: (side, sigma) -> exp(-x^2 / 2 sigma^2) over their sum, computed separately.
WEIGHTS = {
    (3, 1.0): [0.451863, 0.274069],
    (3, 0.8): [0.522011, 0.238994],
    (3, 0.8 * 0.506555): [0.913053, 0.043473],
    (5, 1.0): [0.40262, 0.244201, 0.054489],
    (5, 0.8): [0.499116, 0.228512, 0.02193],
}


@pytest.mark.parametrize(("side", "sigma"), WEIGHTS)
def test_weights_of_the_filter(side, sigma):
    expected = WEIGHTS[side, sigma]
    weights = [*expected[:0:-1], *expected]
    assert gaussian(side, sigma).tolist() == pytest.approx(weights, abs=2e-6)


def test_blur_is_the_sum_over_neighbours_with_zeros_outside():
    x, weights = torch.randn(2, 3, 4, 5, dtype=torch.float64), gaussian(5, 0.9)
    padded = functional.pad(x, (2, 2, 2, 2))
    expected = sum(weights[i] * weights[j] * padded[..., i : i + 4, j : j + 5] for i in range(5) for j in range(5))
    torch.testing.assert_close(blur(x, weights, (2, 3)), expected)


def test_blurred_latents_keep_the_statistics_of_each_image():
    x = torch.randn(3, 4, 8, 9) * torch.tensor([1.0, 5.0, 0.2]).view(3, 1, 1, 1) + 2
    for found, expected in zip(statistics(blurred(x, 3, 1.0)), statistics(x), strict=True):
        torch.testing.assert_close(found, expected)
    assert not torch.allclose(blurred(x, 3, 1.0), x)
    torch.testing.assert_close(blurred(x, 1, 1.0), x)
    torch.testing.assert_close(blurred(x[1:2], 3, 1.0), blurred(x, 3, 1.0)[1:2])
    torch.testing.assert_close(
        with_statistics(x, torch.tensor(1.0), torch.tensor(2.0)).std((1, 2, 3)), torch.full((3,), 2.0)
    )


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_views_hold_every_scale_th_row_and_column(scale):
    x = torch.arange(2 * 6 * 12.0).view(1, 2, 6, 12)
    views = dilated_views(x, scale)
    assert len(views) == scale**2
    top, left = scale - 1, scale // 2
    assert torch.equal(views[top * scale + left], x[:, :, top::scale, left::scale])
    assert torch.equal(interleave(views, scale), x)


def test_padding_goes_above_and_left():
    """A latent of 256x384 in the third phase gets two rows."""
    padded = pad_to_multiple(torch.ones(1, 1, 256, 384), 3)
    assert padded.shape[2:] == (258, 384)
    assert padded[0, 0, :, 0].tolist() == [0, 0] + [1] * 256


def test_permutations_are_independent_and_uniform():
    found = permutations(4, (3, 40, 50), torch.Generator().manual_seed(0))
    assert torch.equal(found.sort(0).values, torch.arange(4).view(4, 1, 1, 1).expand(4, 3, 40, 50))
    shares = torch.stack([(found == i).double().mean((1, 2, 3)) for i in range(4)])
    assert (shares - 0.25).abs().max() < 0.02  # 6000 draws: a standard deviation of 0.006
    x = torch.randn(4, 3, 40, 50)
    shuffled = x.gather(0, found)
    assert torch.equal(shuffled.gather(0, found.argsort(0)), x)
    torch.testing.assert_close(shuffled.mean(0), x.mean(0))
    assert permutations(1, (2, 2), torch.Generator()).unique().tolist() == [0]
