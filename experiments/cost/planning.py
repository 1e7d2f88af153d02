"""What runs would cost, before anything is sampled. No weights are needed.

Calls of the U-Net come from each method (`Method.calls`), FLOPs and memory of a call from running it on tensors
without content, and seconds from a short probe of this machine with a U-Net of constant weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from baselines.clean_images import recomputed, window_gradient
from baselines.method import Calls, Request
from baselines.sampler import sampled_as
from experiments.cost.counting import ELSEWHERE, Cost, cost_of, disk_needed, evaluations, unet_inputs
from experiments.cost.planned import PlannedRun, planned_runs
from experiments.cost.probing import Probe, device_memory, device_name, probe, tokens_of
from experiments.setup.architecture import Model, fake
from experiments.setup.runs import Workload
from scalecrafter.decode import tiled_decoding
from scalecrafter.patching import replaced_attribute
from scalecrafter.pipeline import latent_size, vae_scale_factor

H100 = 100e12  # FLOP/s that one is assumed to sustain in half precision; it was not measured


@dataclass(frozen=True)
class Plan:
    """Estimated cost of one run.

    Args:
        evaluations: U-Net evaluations per image, in units of a guidance pair at the training size.
        operations: (FLOPs of one call, FLOPs of all such calls per image) for each kind of call.
        memory: peak bytes, all weights included.
    """

    run: PlannedRun
    evaluations: float
    operations: tuple[tuple[float, float], ...]
    memory: float

    @property
    def flops(self) -> float:
        """Per image."""
        return sum(total for _, total in self.operations)

    @property
    def disk(self) -> int:
        """Bytes of all images, at most."""
        return disk_needed(self.run.workload.height, self.run.workload.width, self.run.images)


def call_cost(workload: Workload, calls: Calls) -> Cost:
    """Cost of one of these calls."""
    one = replace(calls, times=1)
    if calls.timestep is None:
        return plain_unet_cost(workload.model, one)
    method: Any = workload.method
    shape = workload.model.shape
    guided = replaced_attribute(shape, "_guidance_scale", workload.sampler.guidance_scale)  # as while it samples
    with guided, method.enable(shape, height=workload.height, width=workload.width):
        return unet_cost(workload.model, one)


def unet_cost(model: Model, calls: Calls) -> Cost:
    """Cost of one of these calls of the U-Net as it is, with whatever method is enabled."""
    pipe = model.shape
    with fake:
        inputs = unet_inputs(pipe.unet, calls.samples, calls.height, calls.width, tokens_of(model))
        if calls.differentiated:
            with recomputed(pipe) if calls.differentiated == "recomputed" else nullcontext():
                return cost_of(partial(differentiate, pipe, inputs), pipe.unet)
        with torch.no_grad():
            return cost_of(partial(pipe.unet, timestep=calls.timestep or 0.0, **inputs), pipe.unet)


plain_unet_cost = cache(unet_cost)  # without a method it is the same for all runs of a model


def differentiate(pipe: Any, inputs: dict[str, Any]) -> None:
    """A window's gradient as SyncDiffusion computes it, without its perceptual network."""

    def predict(pair: torch.Tensor) -> torch.Tensor:
        prediction: torch.Tensor = pipe.unet(**inputs | {"sample": pair}, timestep=0.0).sample
        return prediction

    latent = inputs["sample"].chunk(2)[0]
    with replaced_attribute(pipe, "_guidance_scale", 2.0):
        window_gradient(pipe, predict, lambda images: images.square().mean((1, 2, 3)), latent, 2, 0)


@cache
def decoding_cost(model: Model, height: int, width: int, images: int) -> Cost:
    """Cost of decoding a batch of images of this size in pixels.

    In tiles, the feature maps of the whole image are in main memory: that of the device only if there is no GPU.
    """
    pipe = model.shape
    storage = ELSEWHERE if torch.cuda.is_available() else "cpu"
    tiled = tiled_decoding(pipe.vae, storage=storage) if model.tiles(height, width) else nullcontext()
    with fake, torch.no_grad(), tiled:
        shape = images, pipe.vae.config.latent_channels, *latent_size(pipe, (height, width))
        latents = torch.zeros(shape, dtype=pipe.vae.dtype)
        return cost_of(partial(pipe.vae.decode, latents), pipe.unet)


def planned_calls(workload: Workload, images: int) -> list[Calls]:
    """U-Net calls for a batch of so many images; ValueError for a method that does not say which it makes."""
    if not hasattr(workload.method, "calls"):
        raise ValueError(f"{workload.method_name} cannot be planned: it does not define its calls (Method.calls)")
    request = Request(["a"] * images, list(range(images)), workload.height, workload.width, workload.sampler)
    with sampled_as(workload.model.shape, workload.sampler):
        calls: list[Calls] = workload.method.calls(workload.model.shape, request)
    return calls


def planned_evaluations(workload: Workload, calls: Calls) -> float:
    """U-Net evaluations of all these calls."""
    samples = calls.samples + calls.added
    return calls.times * evaluations(workload.model.shape.unet, samples, calls.height, calls.width)


def plan_run(run: PlannedRun) -> Plan:
    """The plan of one run; ValueError as `planned_calls`."""
    workload = run.workload
    batch = min(workload.batch_size, run.images)
    calls = planned_calls(workload, batch)
    with sampled_as(workload.model.shape, workload.sampler):
        costs = [(each.times, call_cost(workload, each)) for each in calls]
    costs.append((1, decoding_cost(workload.model, workload.height, workload.width, batch)))
    weights = sum(
        parameter.nbytes
        for part in workload.model.shape.components.values()
        if isinstance(part, torch.nn.Module)
        for parameter in part.parameters()
    )
    return Plan(
        run=run,
        evaluations=sum(times * cost.evaluations for times, cost in costs) / batch,
        operations=tuple((cost.flops, times * cost.flops / batch) for times, cost in costs),
        memory=weights + max(cost.memory for _, cost in costs),
    )


def plan_text(lines: Sequence[Sequence[str]]) -> str:
    """A table of what the runs of these command lines would cost, and their sum; ValueError if none can be planned."""
    planned: list[Plan] = []
    runs, refused = planned_runs(lines)
    for run in tqdm(runs, desc="plan", unit="run", leave=False):
        try:
            planned.append(plan_run(run))
        except ValueError as error:
            refused.append(str(error))
    if not planned:
        raise ValueError("; ".join(refused))
    probes: dict[Any, Probe] = {}
    for model in {plan.run.workload.model.source: plan.run.workload.model for plan in planned}.values():
        alike = [p.run.workload for p in planned if p.run.workload.model.source == model.source]
        side = max(max(workload.height, workload.width) for workload in alike)
        probes[model.source] = probe(model, side // vae_scale_factor(model.shape))
    seconds = [probes[p.run.workload.model.source].seconds(p.operations) for p in planned]
    table = pd.DataFrame([table_row(p, s) for p, s in zip(planned, seconds, strict=True)])
    hours = sum(s * p.run.images for p, s in zip(planned, seconds, strict=True)) / 3600
    shown = table.to_markdown(index=False, disable_numparse=True)
    return "\n".join([total(planned, hours), "", shown, "", *notes(planned, probes), *refused])


def h100_hours(planned: Sequence[Plan]) -> float:
    """Of all images, on one that sustains `H100`."""
    return sum(plan.flops * plan.run.images for plan in planned) / H100 / 3600


def total(planned: Sequence[Plan], hours: float) -> str:
    """The sum over all runs in one line."""
    disk = sum(plan.disk for plan in planned) / 1e9
    return (
        f"Total: {brief(h100_hours(planned))} H100-hours (assumed to sustain {H100 / 1e12:.0f} TFLOP/s), "
        f"{brief(hours)} hours on {device_name()}, {brief(disk)} GB of disk at most."
    )


def table_row(plan: Plan, seconds: float) -> dict[str, str]:
    workload = plan.run.workload
    return {
        "resolution": f"{workload.resolution} {workload.height}x{workload.width}",
        "method": workload.method_name,
        "images": f"{plan.run.images}",
        "U-Net evals": f"{plan.evaluations:.0f}",
        "TFLOPs/image": brief(plan.flops / 1e12),
        "memory GB": brief(plan.memory / 1e9) + (" !" if plan.memory > device_memory() else ""),
        "disk GB": brief(plan.disk / 1e9),
        "s/image": brief(seconds),
        "hours": brief(seconds * plan.run.images / 3600),
    }


def brief(value: float) -> str:
    """Three significant digits, and separators for thousands."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def notes(planned: Sequence[Plan], probes: dict[Any, Probe]) -> list[str]:
    """What the numbers of the table mean on this machine."""
    device, room = device_name(), f"{device_memory() / 1e9:.0f} GB"
    found = []
    for source, made in probes.items():
        dtype = next(p.run.workload.model.dtype for p in planned if p.run.workload.model.source == source)
        if made.timed:
            flops, seconds = made.timed[-1]
            size = f"{made.largest}x{made.largest}"
            rate = f"{brief(flops / seconds / 1e12)} TFLOP/s on a guidance pair with latents of {size}"
            found.append(f"{source.name} on {device} in {dtype}: {rate}; larger calls are extrapolated at that rate.")
        else:
            found.append(f"{source.name} does not fit into the {room} of {device}: not timed.")
    if any(p.memory > device_memory() for p in planned):
        found.append(f"!: more than the {room} of {device}.")
    found.append("Memory covers weights and tensors of one process on the device, without scoring and text encoding.")
    return found
