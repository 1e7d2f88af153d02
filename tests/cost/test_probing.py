"""A probe times growing calls of the U-Net, which give the seconds of others."""

import math

import pytest

from experiments.cost import probing as probe_module
from experiments.cost.probing import Probe
from experiments.setup.architecture import open_architecture
from experiments.setup.models import ModelSource


def test_probe_times_growing_calls(pipe_folder):
    model = open_architecture(ModelSource("folder", str(pipe_folder), dtype="float32"))
    made = probe_module.probe(model, 40)
    assert made.largest == 40
    assert len(made.timed) == 3  # latents of side 16, 32, 40
    flops = [operations for operations, _ in made.timed]
    assert flops == sorted(flops)
    assert all(seconds > 0 for _, seconds in made.timed)


def test_probe_stops_before_long_calls(pipe_folder, monkeypatch):
    model = open_architecture(ModelSource("folder", str(pipe_folder), dtype="float32"))
    monkeypatch.setattr(probe_module, "time_call", lambda unet, inputs: 4.0)
    made = probe_module.probe(model, 64)
    assert (made.largest, len(made.timed)) == (16, 1)  # four times the area would take more than ten seconds


def test_seconds_use_the_rate_of_the_nearest_timed_call():
    operations = ((1e3, 5e3), (1e6, 2e6))
    assert Probe(((2e3, 1.0), (3e6, 2.0)), 8).seconds(operations) == pytest.approx(5e3 / 2e3 + 2e6 / 1.5e6)
    assert math.isnan(Probe((), 0).seconds(operations))
