"""One training loop for all three networks: seeded by step, logged, checkpointed and resumable."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm


@dataclass(frozen=True)
class Plan:
    """How long and how fast a stage trains. ``ema`` is the decay of the averaged weights (0 = none)."""

    name: str
    steps: int
    batch: int
    learning_rate: float
    ema: float = 0.0
    weight_decay: float = 0.01
    warmup: int = 100

    def rate(self, step: int) -> float:
        """Linear warm-up, then cosine decay to 2% of the peak."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def step_generator(plan: Plan, step: int) -> torch.Generator:
    """The randomness of one step, from its number alone: a resumed training repeats the uninterrupted one."""
    return torch.Generator().manual_seed(1_000_003 * step + sum(plan.name.encode()))


def average(ema: dict[str, Tensor], model: nn.Module, decay: float, step: int) -> None:
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in model.state_dict().items():
        ema[name].lerp_(value, 1 - decay) if value.is_floating_point() else ema[name].copy_(value)


def fit(plan: Plan, model: nn.Module, loss_at: Callable[[int], Tensor], folder: Path, log: Path) -> None:
    """Train ``model`` in place and leave it with the averaged weights, in eval mode.

    Args:
        plan: length, batch size and learning rate.
        model: module whose parameters are trained.
        loss_at: maps a step number to the scalar loss of that step's batch.
        folder: holds the checkpoint ``<name>.pt``; training goes on from it.
        log: JSON lines file to which (stage, step, loss, seconds) is appended.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), plan.learning_rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay
    )
    ema = {name: value.clone() for name, value in model.state_dict().items()}
    checkpoint, first = folder / f"{plan.name}.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        ema, first = saved["ema"], saved["step"]
    model.train()
    losses: list[float] = []
    started = time.monotonic()
    progress = tqdm(range(first, plan.steps), initial=first, total=plan.steps, desc=plan.name, mininterval=5)
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        loss = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average(ema, model, plan.ema, step)
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == plan.steps:
            entry = {"stage": plan.name, "step": step + 1, "loss": round(sum(losses) / len(losses), 6)}
            entry["seconds"] = round(time.monotonic() - started, 1)
            progress.set_postfix(loss=entry["loss"])
            with log.open("a") as stream:
                stream.write(json.dumps(entry) + "\n")
            losses.clear()
        if (step + 1) % 200 == 0 or step + 1 == plan.steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema, "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
    model.load_state_dict(ema)
    model.eval()
