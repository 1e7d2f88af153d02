"""The sizes that SDXL was trained at (Podell et al., 2023, appendix I), and the one that an image is a multiple of."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Height -> widths, in pixels.
WIDTHS = {
    512: (2048, 1984, 1920, 1856),
    576: (1792, 1728, 1664),
    640: (1600, 1536),
    704: (1472, 1408, 1344),
    768: (1344, 1280),
    832: (1216, 1152),
    896: (1152, 1088),
    960: (1088, 1024),
    1024: (1024, 960),
    1088: (960, 896),
    1152: (896, 832),
    1216: (832,),
    1280: (768,),
    1344: (768,),
    1408: (704,),
    1472: (704,),
    1536: (640,),
    1600: (640,),
    1664: (576,),
    1728: (576,),
    1792: (576,),
    1856: (512,),
    1920: (512,),
    1984: (512,),
    2048: (512,),
}
SIZES = [(height, width) for height, widths in WIDTHS.items() for width in widths]


@dataclass(frozen=True)
class Enlargement:
    """A size in pixels, and the whole factor by which both of its sides are enlarged."""

    height: float
    width: float
    factor: int


def enlargement_of(height: int, width: int, *, side: int = 1024, first: bool = False) -> Enlargement:
    """The training size of which an image is a whole multiple with the least padding, both sides together.

    Sizes that need the same factor for both sides go before all others. Of several, the one whose aspect is closest to
    the image's is taken.

    Args:
        height, width: of the image in pixels.
        side: of the square training size in pixels; a smaller model's sizes are SDXL's, scaled.
        first: of several, the first in the order of the table, as in FouriScale's public code.
    """

    def candidate(size: tuple[int, int]) -> tuple[bool, float, float, Enlargement]:
        base = size[0] * side / 1024, size[1] * side / 1024
        factors = [math.ceil(n / b) for n, b in zip((height, width), base, strict=True)]
        factor = max(factors)
        padding = factor * sum(base) - height - width
        aspect = 0.0 if first else abs(math.log(size[0] / size[1] * width / height))
        return factors[0] != factors[1], padding, aspect, Enlargement(*base, factor)

    return min(map(candidate, SIZES), key=lambda each: each[:3])[3]
