"""FouriScale's low-pass filter (Huang et al., 2024, section 3.2), as in the public code: a ramp from the end of the
pass band down to a floor, along each axis of the padded feature map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Filter:
    """A low-pass filter for feature maps that are ``scale`` times their training size.

    Args:
        scale: 1 or more, may be fractional; at 1 everything passes.
        floor: gain of what is stopped, 0 to 1.
        weak: end the ramp at the highest frequency, instead of after an eighth of the map.
        edge: frequencies by which the pass band is wider than 1 / ``scale`` of all; 1 in the public code.
        one_sided: treat the frequency -f as f - 1, as the public code does by the layout of its spectrum.
    """

    scale: float
    floor: float = 0.0
    weak: bool = False
    edge: int = 1
    one_sided: bool = False

    def ramp(self, n: int, frequencies: Tensor) -> Tensor:
        """Gain along an axis of n cells at ``frequencies``, 0 to n / 2 cycles per axis."""
        half = n // 2
        length = int((self.scale - 1) * n / (2 * self.scale)) if self.weak else max(n // 8, 1)
        if length == 0:
            return torch.ones_like(frequencies)
        gain = 1 + (1 - self.floor) * (half / self.scale + self.edge - frequencies) / length
        return gain.clamp(self.floor, 1)

    def axis(self, n: int, device: torch.device) -> Tensor:
        """(n,) gain in the order of `torch.fft.fft`."""
        frequencies = torch.fft.fftfreq(n, 1 / n, device=device).round()
        size = frequencies.abs()
        return self.ramp(n, size - (frequencies < 0).to(size.dtype) if self.one_sided else size)

    def gain(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """(rows, columns // 2 + 1) gain in the order of `torch.fft.rfft2`. Of an uneven gain only the even part acts
        on a real map.
        """
        full = torch.outer(self.axis(rows, device), self.axis(columns, device))
        if self.one_sided:
            mirrored = full.flip(0, 1).roll((1, 1), dims=(0, 1))  # the gain at the opposite frequency
            full = (full + mirrored) / 2
        return full[:, : columns // 2 + 1]


def padded_size(size: tuple[int, int], base: tuple[int, int]) -> tuple[int, int]:
    """The smallest whole multiple, alike for both axes, of the training size that holds a feature map."""
    factor = max(-(-size[0] // base[0]), -(-size[1] // base[1]))
    return base[0] * factor, base[1] * factor


def low_passed(x: Tensor, band: Filter, size: tuple[int, int], *, crop: bool = True) -> Tensor:
    """Filter a map that is padded with zeros at the bottom and the right, in float32 or better.

    Args:
        x: (N, C, rows, columns).
        band: the filter.
        size: (rows, columns) to pad to.
        crop: to the size of ``x``.
    """
    rows, columns = x.shape[-2:]
    padded = F.pad(x, (0, size[1] - columns, 0, size[0] - rows))
    if band.scale > 1:
        gain = band.gain(*size, x.device)
        precise = padded.to(torch.promote_types(x.dtype, torch.float32))
        padded = torch.fft.irfft2(torch.fft.rfft2(precise) * gain, s=size).to(x.dtype)
    return padded[..., :rows, :columns] if crop else padded
