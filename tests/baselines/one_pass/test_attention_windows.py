"""HiDiffusion's windows of tokens: numbers by hand, and their inverse."""

import numpy as np
import torch

from baselines.one_pass.attention_windows import from_windows, to_windows
from tests.baselines.one_pass.explicit import shaped


def test_windows_are_a_partition():
    """Eight by eight tokens, windows of four, shifted by one: numbers by hand; merging is the inverse."""
    tokens = torch.arange(64.0).view(1, 64, 1)
    windows = to_windows(tokens, (8, 8), 1)[..., 0]
    assert windows.shape == (4, 16)
    assert windows[0, :4].tolist() == [9, 10, 11, 12]
    assert windows[3, -4:].tolist() == [5, 6, 7, 0]
    for size in ((8, 8), (12, 16), (6, 20)):
        x = torch.randn(3, size[0] * size[1], 5)
        for quarters in range(4):
            windows = to_windows(x, size, quarters)
            assert windows.shape == (12, size[0] * size[1] // 4, 5)
            assert torch.equal(from_windows(windows, size, quarters), x)


def test_shifts_by_quarters_of_a_window():
    """Feature sides 128, 64, 96 and, resized to 46, 45."""
    for side, shifts in {128: (0, 16, 32, 48), 64: (0, 8, 16, 24), 96: (0, 12, 24, 36)}.items():
        x = torch.arange(float(side * side)).view(1, -1, 1)
        assert tuple(int(to_windows(x, (side, side), k)[0, 0, 0]) % side for k in range(4)) == shifts
    assert to_windows(torch.zeros(1, 45 * 45, 1), (45, 45), 3).shape == (4, 23 * 23, 1)


def test_an_odd_map_is_enlarged_and_comes_back():
    """A smooth map almost unchanged, a constant one exactly."""
    ramp = torch.linspace(0, 1, 45).view(45, 1).expand(45, 45).reshape(1, -1, 1)
    back = from_windows(to_windows(ramp, (45, 45), 2), (45, 45), 2)
    np.testing.assert_allclose(back, ramp, atol=0.03)
    constant = torch.ones(1, 45 * 45, 1)
    torch.testing.assert_close(from_windows(to_windows(constant, (45, 45), 2), (45, 45), 2), constant)


@torch.no_grad()
def test_on_equal_tokens_windowed_and_global_attention_agree(tmp_path):
    attention = shaped("sd15", tmp_path).unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    tokens = torch.randn(1, 1, 8).expand(1, 64, 8)
    windowed = from_windows(attention(to_windows(tokens, (8, 8), 1)), (8, 8), 1)
    torch.testing.assert_close(windowed, attention(tokens), atol=1e-6, rtol=1e-5)
