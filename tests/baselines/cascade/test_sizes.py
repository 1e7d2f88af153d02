"""Sizes of a cascade's stages, and what they cost."""

from baselines.cascade.sdedit import SDEdit
from baselines.cascade.sizes import doublings, geometric_sizes, linear_sizes, start_size
from baselines.method import Request, Sampler


def test_sizes():
    assert linear_sizes((1024, 1024), (4096, 4096), 3, 8) == [(1024, 1024), (2560, 2560), (4096, 4096)]
    assert linear_sizes((1536, 768), (4096, 2048), 3, 8) == [(1536, 768), (2816, 1408), (4096, 2048)]
    assert geometric_sizes((512, 512), (2048, 2048), 3, 8) == [(512, 512), (1024, 1024), (2048, 2048)]
    assert geometric_sizes((32, 32), (32, 32), 3, 4) == [(32, 32)]
    assert linear_sizes((32, 32), (36, 36), 3, 4) == [(32, 32), (36, 36)]
    ratios = {2: 1, 4: 2, 8: 3, 1.2: 1, 2.5: 1, 3: 2}
    assert {r: doublings((1000, 1000), (round(1000 * r), round(1000 * r))) for r in ratios} == ratios


def test_first_size_is_at_most_the_target(pipe):
    for height, width in ((64, 64), (40, 40), (32, 96), (28, 44), (64, 128)):
        base = start_size(pipe, height, width)
        assert base[0] <= height
        assert base[1] <= width


def pairs(method, pipe, side, steps=50):
    """Planned base-size guidance pairs of one image of ``side`` times the training side."""
    request = Request(["a"], [1], 32 * side, 32 * side, Sampler(steps, 7.5))
    return sum(c.times * c.samples / 2 * c.height * c.width / 64 for c in method.calls(pipe, request))


def test_published_costs(pipe):
    """Self-Cascade's tuning-free path and FreeScale: 190 and 750 base-size pairs."""
    assert pairs(SDEdit(), pipe, 2) == 190
    assert pairs(SDEdit(), pipe, 4) == 750
    assert pairs(SDEdit(count=2), pipe, 4) == 50 + 35 * 16
