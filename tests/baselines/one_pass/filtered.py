"""FouriScale's U-Net spelled out with discrete Fourier transforms."""

import cmath
import math

import torch
from torch import nn

from tests.baselines.one_pass.explicit import (
    Explicit,
    convolved,
)


def ramp(n, s, v, weak, f, edge=1):
    """Gain at frequency f of an axis of n cells, by the formula of the public code."""
    length = math.floor((s - 1) * n / (2 * s)) if weak else max(n // 8, 1)
    return 1.0 if length == 0 else min(max(1 + (1 - v) * (n // 2 / s + edge - f) / length, v), 1)


def fourier(n):
    """(n, n) of the discrete transform; frequencies -n // 2 to (n - 1) // 2."""
    frequencies = range(-(n // 2), n - n // 2)
    rows = [[cmath.exp(-2j * math.pi * f * x / n) for x in range(n)] for f in frequencies]
    return torch.tensor(rows, dtype=torch.complex128)


def slow_filter(x, size, s, v, weak, *, edge=1, parity=False):
    """Pad, transform, multiply and transform back, keeping the real part; the result is padded still."""
    gains, transforms = [], []
    for n in size:
        frequencies = range(-(n // 2), n - n // 2)
        places = [-f - 1 if f < 0 else f for f in frequencies] if parity else map(abs, frequencies)
        gains.append(torch.tensor([ramp(n, s, v, weak, f, edge) for f in places], dtype=torch.float64))
        transforms.append(fourier(n))
    padded = torch.zeros(*x.shape[:2], *size, dtype=torch.complex128)
    padded[..., : x.shape[2], : x.shape[3]] = x
    spectrum = (transforms[0] @ padded @ transforms[1].T) * torch.outer(*gains)
    inverse = [transform.conj().T / len(transform) for transform in transforms]
    return (inverse[0] @ spectrum @ inverse[1].T).real


class SlowConvolution(nn.Module):
    """The strongly filtered samples, then the last third with the mild filter and a dilation of its own."""

    def __init__(self, conv, base, d, v, divisor, low_pass=True, padded=False, **options):
        super().__init__()
        self.conv, self.base, self.d, self.v, self.divisor = conv, base, d, v, divisor
        self.low_pass, self.padded, self.options = low_pass, padded, options

    def forward(self, x):
        rows, columns = x.shape[-2:]
        r = max(math.ceil(rows / self.base), math.ceil(columns / self.base))
        stride, found = self.conv.stride[0], []
        for number, part in enumerate(x.chunk(3)):
            weak = number == 2
            d = math.ceil(max(self.d / self.divisor, 1)) if weak else math.ceil(self.d)
            if self.low_pass:
                s = max(self.d / stride, 1)
                part = slow_filter(part, (r * self.base, r * self.base), s, self.v, weak, **self.options)
                part = part if self.padded else part[..., :rows, :columns]
            y = convolved(part, self.conv, stride=stride, spacing=d)
            found.append(y[..., : math.ceil(rows / stride), : math.ceil(columns / stride)])
        return torch.cat(found)


class SharedAttention(nn.Module):
    """Self-attention, head by head; the last third has the queries and keys of the second."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x, **arguments):
        attention, third = self.attention, len(x) // 3
        q, k, v = attention.to_q(x), attention.to_k(x), attention.to_v(x)
        for each in (q, k):
            each[2 * third :] = each[third : 2 * third]
        width = q.shape[-1] // attention.heads
        heads = []
        for h in range(attention.heads):
            part = slice(h * width, (h + 1) * width)
            weights = (q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(width)).softmax(-1)
            heads.append(weights @ v[..., part])
        return attention.to_out[0](torch.cat(heads, -1))


BLOCKS = {
    4: {"down_blocks.2": 2, "down_blocks.3": 3, "mid_block": 3, "up_blocks.0": 3, "up_blocks.1": 2, "up_blocks.2": 1},
    3: {"down_blocks.2": 2, "mid_block": 2, "up_blocks.0": 2, "up_blocks.1": 1},
}
SAMPLERS = {
    4: ("down_blocks.2.down", "up_blocks.0.up", "up_blocks.1.up", "up_blocks.2.up"),
    3: ("up_blocks.0.up",),
}


class FilteredUNet(Explicit):
    """The layers of the paper's lists; ``d`` is the dilation at the call's step, the base latent is 8x8."""

    def __init__(self, unet, d, share=True, low_pass=True, **options):
        super().__init__(unet)
        levels = len(self.unet.down_blocks)
        v, divisor = (0.0, 1.0) if levels == 4 else (0.6, 1.5)
        rules = {"v": v, "divisor": divisor, "d": d, **options}
        for name, level in BLOCKS[levels].items():
            block = self.unet.get_submodule(name)
            for resnet in block.resnets:
                for which in ("conv1", "conv2"):
                    conv = SlowConvolution(getattr(resnet, which), 8 // 2**level, low_pass=low_pass, **rules)
                    setattr(resnet, which, conv)
        for name in SAMPLERS[levels]:
            sampler = self.unet.get_submodule(f"{name}samplers.0")
            down = name.endswith("down")
            sampler.conv = SlowConvolution(sampler.conv, 2, low_pass=low_pass and down, **rules)
        if share:
            for module in self.unet.modules():
                if hasattr(module, "attn1"):
                    module.attn1 = SharedAttention(module.attn1)

    def halves(self, timestep, **inputs):
        """What the pipeline gets for [uncond, cond]: the first and the last of [uncond, cond, cond]."""
        first, _, last = self(timestep, **thrice(inputs)).chunk(3)
        return torch.cat([first, last])


def thrice(value):
    if isinstance(value, dict):
        return {key: thrice(item) for key, item in value.items()}
    return torch.cat([value, value[len(value) // 2 :]])


def told(inputs, height, width):
    """The arguments with SDXL's sizes replaced."""
    if "added_cond_kwargs" not in inputs:
        return inputs
    ids = torch.tensor([[height, width, 0, 0, height, width]] * 2).float()
    return {**inputs, "added_cond_kwargs": {**inputs["added_cond_kwargs"], "time_ids": ids}}
