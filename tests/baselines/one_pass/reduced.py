"""HiDiffusion's U-Net spelled out layer by layer."""

import torch
from torch import nn

from tests.baselines.one_pass.explicit import (
    Explicit,
    bicubic,
    convolved,
    pooled,
)


class SlowWindows(nn.Module):
    """Self-attention of the tokens of one window after the other."""

    def __init__(self, attention, quarters):
        super().__init__()
        self.attention, self.quarters = attention, quarters

    def forward(self, x, **arguments):
        (h, w), channels = self.size, x.shape[2]
        a, b = (h + 1) // 2, (w + 1) // 2
        grid = x.transpose(1, 2).reshape(len(x), channels, h, w)
        odd = (h, w) != (2 * a, 2 * b)
        grid = bicubic(grid, (2 * a, 2 * b)) if odd else grid
        y = torch.zeros_like(grid)
        for row in range(2):
            for column in range(2):
                rows = [(row * a + i + self.quarters * (a // 4)) % (2 * a) for i in range(a)]
                columns = [(column * b + j + self.quarters * (b // 4)) % (2 * b) for j in range(b)]
                tokens = torch.stack([grid[:, :, i, j] for i in rows for j in columns], 1)
                attended = self.attention(tokens)
                for number, (i, j) in enumerate((i, j) for i in rows for j in columns):
                    y[:, :, i, j] = attended[:, number]
        y = bicubic(y, (h, w)) if odd else y
        return y.flatten(2).transpose(1, 2)


class ReducedUNet(Explicit):
    """Stride 4 in one downsampler, a pooled level, attention in windows shifted by ``quarters`` of a window."""

    def __init__(self, unet, level, strided, pool, quarters=None):
        super().__init__(unet)
        self.level, self.strided, self.pool = level, strided, pool
        if quarters is not None:
            for block in (self.unet.down_blocks[level], self.unet.up_blocks[-1 - level]):
                for attention in getattr(block, "attentions", None) or ():
                    for inner in attention.transformer_blocks:
                        inner.attn1 = SlowWindows(inner.attn1, quarters)

    def downsampled(self, level, conv, x):
        return convolved(x, conv, stride=4, spacing=2) if self.strided and level == self.level else conv(x)

    def layer(self, side, level, index, x):
        if self.pool and (side, level, index) == ("down", 1, 0):
            self.before = tuple(x.shape[-2:])
            return pooled(x)
        if self.pool and (side, level, index) == ("up", 1, 1):
            return bicubic(x, self.before)
        return x
