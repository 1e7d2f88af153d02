"""Predictions of many equally large parts of a latent, a few in each call of the U-Net, and the cost of that."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from baselines.method import Calls
from baselines.multidiffusion import repeat_batch
from scalecrafter.batch import map_batch

# (conditions of a call on several parts, the parts' indices) -> conditions
Change = Callable[[dict[str, Any], range], dict[str, Any]]


def predict_parts(
    unet: Any, parts: list[Tensor], t: Any, conditions: dict[str, Any], most: int, change: Change | None = None
) -> list[Tensor]:
    """The U-Net's prediction of each part (N, C, rows, columns), at most ``most`` in a call.

    A call's batch holds the parts one after the other. ``conditions`` are the keyword arguments of a call on one
    part; ``change`` adapts them to the parts of a call.
    """
    predictions: list[Tensor] = []
    for start in range(0, len(parts), most):
        chosen = parts[start : start + most]
        batch = len(chosen[0])
        repeated = map_batch(conditions, (batch,), partial(repeat_batch, count=len(chosen)))
        if change is not None:
            repeated = change(repeated, range(start, start + len(chosen)))
        predictions += unet(torch.cat(chosen), t, **repeated, return_dict=False)[0].split(batch)
    return predictions


def calls_on_parts(times: int, parts: int, most: int, samples: int, rows: int, columns: int) -> list[Calls]:
    """The calls of `predict_parts` on this many parts of ``samples`` latents, ``times`` times over."""
    full, rest = divmod(parts, most)
    kinds = ((times * full, most), (times, rest))
    return [Calls(repeated, count * samples, rows, columns) for repeated, count in kinds if repeated and count]
