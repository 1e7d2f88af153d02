"""The training loop: learning rates, averaged weights, and resuming from a checkpoint."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from experiments.scenes.renderer.scene import render_all, sample_scenes
from experiments.scenes.training.data import counting_scenes, rendered
from experiments.scenes.training.loop import TrainingSchedule, run_training, step_generator

SCHEDULE = TrainingSchedule("toy", steps=400, batch=4, learning_rate=0.1, ema=0.9, warmup=10)


class Interrupted(Exception):
    pass


def train_toy(folder, stop_at=None):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss_at(step):
        if step == stop_at:
            raise Interrupted
        x = torch.randn(SCHEDULE.batch, 3, generator=step_generator(SCHEDULE, step))
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    folder.mkdir(exist_ok=True)
    run_training(SCHEDULE, model, loss_at, folder, folder / "log.jsonl")
    return model


def test_training_converges_and_logs(tmp_path):
    model = train_toy(tmp_path)
    torch.testing.assert_close(model.weight.detach(), torch.ones(1, 3), atol=0.02, rtol=0)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == list(range(50, 401, 50))
    assert entries[-1]["loss"] < entries[0]["loss"]
    assert not model.training


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    whole = train_toy(tmp_path / "whole")
    for stop_at in (1, 250, 399):  # before the first checkpoint, after it, at the last step
        folder = tmp_path / f"stopped-{stop_at}"
        with pytest.raises(Interrupted):
            train_toy(folder, stop_at)
        assert torch.equal(whole.weight, train_toy(folder).weight)
        assert sorted(path.name for path in folder.iterdir()) == ["log.jsonl", "toy.pt"]


def test_learning_rate_warms_up_and_decays():
    rates = [SCHEDULE.rate(step) for step in range(SCHEDULE.steps + 1)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[10] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.002)
    assert rates[205] == pytest.approx(0.1 * (0.02 + 0.98 * 0.5))


def test_rendered_sets_are_cached_by_scenes_and_size(tmp_path):
    scenes = sample_scenes(3, seed=0)
    images = rendered(scenes, 16, tmp_path / "new/train.npy")
    np.testing.assert_array_equal(images, render_all(scenes, 16, 16))
    (file,) = (tmp_path / "new").iterdir()
    np.save(file, np.zeros((3, 16, 16, 3), np.uint8))
    assert not rendered(scenes, 16, tmp_path / "new/train.npy").any()  # loaded, not rendered again
    assert rendered(scenes, 8, tmp_path / "new/train.npy").shape == (3, 8, 8, 3)


def test_counting_scenes_have_one_to_sixteen_copies():
    assert {scene.copies for scene in counting_scenes(400, 1)} == set(range(1, 17))
