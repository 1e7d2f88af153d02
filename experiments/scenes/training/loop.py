"""The training loop shared by all networks: seeded by step, logged, checkpointed and resumable."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from eval.files import open_atomically

LOG_EVERY, SAVE_EVERY = 50, 200  # steps


@dataclass(frozen=True)
class TrainingSchedule:
    """Length, batch size and learning rate of a training stage. ``ema`` is the decay of the averaged weights."""

    name: str
    steps: int
    batch: int
    learning_rate: float
    ema: float = 0.0  # 0 disables averaging
    weight_decay: float = 0.01
    warmup: int = 100  # steps

    def rate(self, step: int) -> float:
        """Learning rate at ``step``: linear warm-up, then cosine decay to 2% of the peak."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def step_generator(schedule: TrainingSchedule, step: int) -> torch.Generator:
    """Generator seeded by the step number alone, so that a resumed training repeats the uninterrupted one."""
    return torch.Generator().manual_seed(1_000_003 * step + sum(schedule.name.encode()))


def update_average(ema: dict[str, Tensor], model: nn.Module, decay: float, step: int) -> None:
    """Update the averaged weights in place; early steps use a smaller decay, so that the initial weights fade fast."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in model.state_dict().items():
        ema[name].lerp_(value, 1 - decay) if value.is_floating_point() else ema[name].copy_(value)


@dataclass
class Checkpoint:
    """The state of a training stage on disk; loads an existing file on construction."""

    path: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: dict[str, Tensor] = field(init=False)
    step: int = 0

    def __post_init__(self) -> None:
        self.ema = {name: value.clone() for name, value in self.model.state_dict().items()}
        if self.path.exists():
            saved = torch.load(self.path, weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.ema, self.step = saved["ema"], saved["step"]

    def save(self, step: int) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "ema": self.ema}
        with open_atomically(self.path) as stream:
            torch.save(state | {"step": step}, stream)


def run_training(
    schedule: TrainingSchedule, model: nn.Module, loss_at: Callable[[int], Tensor], folder: Path, log: Path
) -> None:
    """Train ``model`` in place and leave it with the averaged weights, in eval mode.

    Args:
        schedule: length, batch size and learning rate.
        model: module whose parameters are trained.
        loss_at: maps a step number to the scalar loss of that step's batch.
        folder: holds the checkpoint ``<name>.pt``; training resumes from it.
        log: JSON lines file to which (stage, step, loss, seconds) is appended.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), schedule.learning_rate, betas=(0.9, 0.99), weight_decay=schedule.weight_decay
    )
    checkpoint = Checkpoint(folder / f"{schedule.name}.pt", model, optimizer)
    first, last = checkpoint.step, schedule.steps
    model.train()
    losses: list[float] = []
    started = time.monotonic()
    progress = tqdm(range(first, last), initial=first, total=last, desc=schedule.name, mininterval=5)
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        loss = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update_average(checkpoint.ema, model, schedule.ema, step)
        losses.append(loss.item())
        done = step + 1
        if done % LOG_EVERY == 0 or done == last:
            entry = {"stage": schedule.name, "step": done, "loss": round(sum(losses) / len(losses), 6)}
            entry["seconds"] = round(time.monotonic() - started, 1)
            progress.set_postfix(loss=entry["loss"])
            with log.open("a") as stream:
                stream.write(json.dumps(entry) + "\n")
            losses.clear()
        if done % SAVE_EVERY == 0 or done == last:
            checkpoint.save(done)
    model.load_state_dict(checkpoint.ema)
    model.eval()
