"""Sizes of phases."""

import pytest

from baselines.patches.phases import phase_sizes, scale_of
from experiments.setup.architecture import load_architecture
from experiments.setup.models import ModelSource

# Sizes in pixels for SDXL -> latent sizes of the phases.
PHASES = {
    (1024, 1024): [(128, 128)],
    (2048, 2048): [(128, 128), (256, 256)],
    (2048, 3072): [(85, 128), (170, 256), (256, 384)],
    (4096, 2048): [(128, 64), (256, 128), (384, 192), (512, 256)],
    (2560, 2560): [(128, 128), (256, 256), (320, 320)],
    (1024, 1280): [(102, 128), (128, 160)],
}


@pytest.mark.parametrize("size", PHASES)
def test_sizes_of_phases(size):
    pipe = load_architecture(ModelSource("sdxl"))
    sizes = phase_sizes(pipe, *size)
    latents = [(height // 8, width // 8) for height, width in sizes]
    assert latents == PHASES[size]
    assert sizes[-1] == size
    assert [scale_of(pipe, *latent) for latent in latents] == list(range(1, len(latents) + 1))
    assert phase_sizes(pipe, *size, count=2) == list(dict.fromkeys((sizes[0], sizes[-1])))
    assert phase_sizes(pipe, *size, count=9) == sizes


def test_a_number_of_phases_is_spread_evenly():
    assert [h // 1024 for h, _ in phase_sizes(load_architecture(ModelSource("sdxl")), 5120, 5120, count=3)] == [
        1,
        3,
        5,
    ]
