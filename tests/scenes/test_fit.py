"""The training loop: the planned rates, averaged weights, and a resumed training that equals the uninterrupted one."""

import json

import pytest
import torch
from torch import nn

from experiments.scenes.fit import Plan, fit, step_generator

PLAN = Plan("toy", steps=400, batch=4, learning_rate=0.1, ema=0.9, warmup=10)


class Interrupted(Exception):
    pass


def train(folder, stop_at=None, plan=PLAN):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss_at(step):
        if step == stop_at:
            raise Interrupted
        x = torch.randn(plan.batch, 3, generator=step_generator(plan, step))
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    folder.mkdir(exist_ok=True)
    fit(plan, model, loss_at, folder, folder / "log.jsonl")
    return model


def test_it_learns_and_logs(tmp_path):
    model = train(tmp_path)
    torch.testing.assert_close(model.weight.detach(), torch.ones(1, 3), atol=0.02, rtol=0)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == list(range(50, 401, 50))
    assert entries[-1]["loss"] < entries[0]["loss"]
    assert not model.training


@pytest.mark.parametrize("stop_at", [1, 250, 399])
def test_a_resumed_training_equals_the_uninterrupted_one(tmp_path, stop_at):
    whole = train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "resumed", stop_at)
    resumed = train(tmp_path / "resumed")
    assert torch.equal(whole.weight, resumed.weight)


def test_the_rate_warms_up_and_decays():
    rates = [PLAN.rate(step) for step in range(PLAN.steps + 1)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[10] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.002)
    assert rates[205] == pytest.approx(0.1 * (0.02 + 0.98 * 0.5))
