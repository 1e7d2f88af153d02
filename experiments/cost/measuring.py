"""Measuring one call of a method: seconds and peak memory, alternately with a baseline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from baselines.method import Request, UNetMethod
from experiments.cost.counting import unet_inputs
from scalecrafter.pipeline import latent_size

SHORTEST = 0.2  # seconds: faster calls are timed several in a row


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def unet_call(pipe: Any, request: Request) -> Callable[[], Any]:
    """A call on a guidance pair for each prompt at the first timestep, where every layer of a table is active."""
    rows, columns = latent_size(pipe, (request.height, request.width))
    inputs = unet_inputs(pipe.unet, 2 * len(request.prompts), rows, columns, pipe.tokenizer.model_max_length)
    return partial(pipe.unet, timestep=pipe.scheduler.config.num_train_timesteps - 1, **inputs)


def time_unet(pipe: Any, method: UNetMethod, request: Request, calls: int) -> float:
    """Seconds of one U-Net call."""
    call = unet_call(pipe, request)
    with method.enable(pipe, height=request.height, width=request.width), torch.no_grad():
        synchronize()
        started = time.perf_counter()
        for _ in range(calls):
            call()
        synchronize()
    return (time.perf_counter() - started) / calls


def time_sampling(pipe: Any, method: UNetMethod, request: Request, calls: int) -> float:
    """Seconds from prompts to images, decoding included."""
    synchronize()
    started = time.perf_counter()
    for _ in range(calls):
        method.generate(pipe, request)
    synchronize()
    return (time.perf_counter() - started) / calls


def time_decoding(pipe: Any, method: UNetMethod, request: Request, calls: int) -> float:
    """Seconds of decoding the latents of a request."""
    vae = pipe.vae
    shape = len(request.prompts), vae.config.latent_channels, *latent_size(pipe, (request.height, request.width))
    latents = torch.zeros(shape, dtype=vae.dtype, device=vae.device)
    with method.enable(pipe, height=request.height, width=request.width), torch.no_grad():
        synchronize()
        started = time.perf_counter()
        for _ in range(calls):
            vae.decode(latents)
        synchronize()
    return (time.perf_counter() - started) / calls


def unet_memory(pipe: Any, method: UNetMethod, request: Request, calls: int) -> float:
    """Peak bytes of tensors during one U-Net call, weights included."""
    call = unet_call(pipe, request)
    weights = sum(p.nbytes for p in pipe.unet.parameters())
    with method.enable(pipe, height=request.height, width=request.width), torch.no_grad():
        call()  # what is allocated once
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            call()
            return float(torch.cuda.max_memory_allocated())
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            call()
    changes = [(e.start_ns(), e.nbytes()) for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for _, change in sorted(changes):
        held += change
        most = max(most, held)
    return float(weights + most)


@dataclass(frozen=True)
class Measure:
    """How to measure one call, in which unit, and whether a short one has to be repeated."""

    function: Callable[[Any, UNetMethod, Request, int], float]
    unit: str = "s"


MEASURES = {
    "unet": Measure(time_unet),
    "sampling": Measure(time_sampling),
    "decoding": Measure(time_decoding),
    "memory": Measure(unet_memory, "bytes"),
}


def measure_pairs(
    pipe: Any, baseline: UNetMethod, method: UNetMethod, measure: Measure, request: Request, pairs: int
) -> list[tuple[float, float]]:
    """(baseline, method) values, one of each per pair, in alternating order after a warm-up."""
    sides = (baseline, method)
    calls = 1
    if measure.unit == "s":
        warm = [measure.function(pipe, method, request, 1) for method in (*sides, *sides)]
        calls = max(1, math.ceil(SHORTEST / min(warm)))
    else:
        pairs = 1  # bytes do not vary
    found = []
    for pair in range(pairs):
        order = sides if pair % 2 == 0 else sides[::-1]
        first, second = (measure.function(pipe, method, request, calls) for method in order)
        found.append((first, second) if pair % 2 == 0 else (second, first))
    return found
