"""The speed of this machine: timed calls of a model's U-Net at its true size, with constant weights."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
import torch

from experiments.cost.counting import cost_of, unet_inputs
from experiments.setup.architecture import Model, default_dtype, fake

SECONDS = 10.0  # calls expected to take longer are not made
SMALLEST = 16  # side of the latent
SHARE = 0.8  # of the memory that a probe may use


@dataclass(frozen=True)
class Probe:
    """Timed calls of a U-Net: (FLOPs, seconds) of each, none if its weights do not fit; and the latent side of the
    largest.
    """

    timed: tuple[tuple[float, float], ...]
    largest: int

    def seconds(self, operations: Sequence[tuple[float, float]]) -> float:
        """Estimated for (FLOPs of one call, of all such calls): each at the rate of the timed call of nearest size."""

        def rate(flops: float) -> float:
            timed, seconds = min(self.timed, key=lambda timed: abs(math.log(timed[0] / flops)))
            return timed / seconds

        return sum(total / rate(flops) for flops, total in operations) if self.timed else math.nan


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "this CPU"


def device_memory() -> int:
    """Bytes of the GPU, or of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return psutil.virtual_memory().total


def empty_unet(shape: Any, dtype: torch.dtype) -> torch.nn.Module:
    """A U-Net of this architecture on the device, with constant weights."""
    with torch.device("meta"), default_dtype(dtype):
        unet = type(shape).from_config(shape.config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    unet = unet.to_empty(device=device).to(memory_format=torch.channels_last).eval()
    for parameter in unet.parameters():
        parameter.data.fill_(0.01)
    return unet


def probe(model: Model, largest: int) -> Probe:
    """Time calls on a guidance pair at doubling latent sizes, up to side ``largest`` or as far as time and memory
    allow.
    """
    shape, dtype = model.shape.unet, getattr(torch, model.dtype)
    room = SHARE * device_memory() - sum(parameter.numel() for parameter in shape.parameters()) * dtype.itemsize
    timed: list[tuple[float, float]] = []
    side = reached = 0
    unet = empty_unet(shape, dtype) if room > 0 else None
    while unet is not None and side < largest:
        side = min(2 * side or SMALLEST, largest)
        inputs = partial(unet_inputs, samples=2, rows=side, columns=side, tokens=tokens_of(model))
        with fake, torch.no_grad():
            cost = cost_of(partial(shape, timestep=0.0, **inputs(shape)), shape)
        slow = timed and timed[-1][1] * cost.flops / timed[-1][0] > SECONDS
        if slow or cost.memory > room:
            break
        timed.append((cost.flops, time_call(unet, inputs(unet))))
        reached = side
    return Probe(tuple(timed), reached)


def tokens_of(model: Model) -> int:
    """Length of a padded prompt."""
    return model.shape.text_encoder.config.max_position_embeddings


@torch.no_grad()
def time_call(unet: torch.nn.Module, inputs: dict[str, Any]) -> float:
    """Seconds of a call, the faster of two."""
    found = []
    for _ in range(2):
        started = time.perf_counter()
        unet(**inputs, timestep=0.0)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return min(found)
