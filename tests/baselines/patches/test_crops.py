"""Crops at random offsets."""

import itertools

import pytest
import torch

from baselines.patches.crops import Crops, jittered, offset
from baselines.windows import Windows


def test_offsets_keep_the_outermost_windows_at_the_border():
    """All offsets that a window can get, by which borders it touches."""
    shares = [i / 1000 for i in range(1000)]
    ranges = {(64, 256): (-16, 16), (0, 256): (-16, 0), (128, 256): (0, 16), (0, 128): (0, 0)}
    for (start, side), (low, high) in ranges.items():
        found = {offset(start, side, 128, 16, share) for share in shares}
        assert found == set(range(low, high + 1))


@pytest.mark.parametrize(("side", "starts"), [(128, 1), (160, 2), (192, 2), (256, 3), (320, 4), (384, 5), (512, 7)])
def test_number_of_windows(side, starts):
    """As many as the public code has per axis, for crops of 128 at a stride of 64."""
    windows = Windows.cover(side, 128, 128, 128, (64, 64), circular=False)
    assert len(windows) == starts
    assert windows.corners[-1][0] == side - 128


def test_average_of_crops_is_the_latent():
    """Every latent pixel is covered at any size, whatever the offsets, and padding does not enter."""
    for (rows, columns), seed in itertools.product(((8, 8), (13, 17), (24, 8), (16, 30)), range(5)):
        x = torch.randn(4, 3, rows, columns, dtype=torch.float64)
        windows = Windows.cover(rows, columns, 8, 8, (4, 4), circular=False)
        generator = torch.Generator().manual_seed(seed)
        corners = tuple(jittered(windows, (2, 1), generator) for _ in range(2))
        crops = Crops(8, 8, (2, 1), corners)
        parts = crops.cut(x)
        assert all(part.shape == (4, 3, 8, 8) for part in parts)
        torch.testing.assert_close(crops.average(parts, rows, columns), x)


def test_each_image_is_cut_at_its_own_corners():
    """The rows are the images twice over, for the two halves of guidance; what lies outside is zero."""
    x = torch.randn(4, 1, 8, 8)
    crops = Crops(4, 4, (1, 1), (((-1, 0), (2, 3)), ((4, 4), (1, 5))))
    first, second = crops.cut(x)
    assert torch.equal(first[2, 0, 1:], x[2, 0, :3, :4])
    assert not first[2, 0, 0].any()
    assert torch.equal(first[1], x[1, :, 4:, 4:])
    assert torch.equal(second[3, 0, :, :3], x[3, 0, 1:5, 5:])
    assert not second[3, 0, :, 3].any()
