"""What cells would take, before anything is drawn: `plan=true` on any command line that draws. No weights are needed.

Calls of the U-Net come from each method (`Method.calls`); operations and memory of one from running it on tensors
without content; seconds from a short probe of this machine, with a U-Net of random weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from baselines.method import Calls, Request
from experiments.cost.counting import Cost, cost_of, unet_inputs
from experiments.cost.probing import Probe, device_memory, device_name, probe, tokens_of
from experiments.prompts import load_prompts
from experiments.sampling.manifest import disk_needed
from experiments.setup.architecture import fake, load_architecture
from experiments.setup.config import (
    Drawing,
    base_overrides,
    compose_config,
    plain_values,
    prompt_count,
    read_drawing,
)
from scalecrafter.decode import tiled_decoding
from scalecrafter.pipeline import check_size, check_unet, pixels_per_cell


@dataclass(frozen=True)
class Planned(Drawing):
    """What is planned of one cell: everything but its weights and its prompts' texts."""

    images: int
    scored: bool


@dataclass(frozen=True)
class Plan:
    """Of one cell. ``operations`` are floating-point operations of one picture in calls of the size of each;
    ``memory`` the most bytes at any moment, all weights included.
    """

    drawing: Planned
    evaluations: float
    operations: tuple[tuple[float, float], ...]  # (of one call, of all such calls for one picture)
    memory: float

    @property
    def flops(self) -> float:
        """Floating-point operations of one picture."""
        return sum(total for _, total in self.operations)

    @property
    def disk(self) -> int:
        """Bytes of all pictures, at most."""
        return disk_needed(self.drawing.height, self.drawing.width, self.drawing.images)


def read_planned(overrides: Sequence[str]) -> Planned:
    """A cell as far as a plan needs it; a manifest of prompts may be missing where their number is given."""
    config = compose_config(overrides)
    values = plain_values(config)
    drawing = read_drawing(config, values, load_architecture)
    check_unet(drawing.model.pipe)
    check_size(drawing.model.pipe, drawing.height, drawing.width)
    limit = prompt_count(values["prompts"]["limit"], drawing.height, drawing.width)
    images = len(load_prompts(values["prompts"])) if limit is None else limit
    return Planned(**vars(drawing), images=images, scored=values["metrics"]["extractor"] is not None)


def planned_cells(lines: Sequence[Sequence[str]]) -> list[Planned]:
    """The cells of command lines, and before them the samples of training size that their scores need, each once."""
    found: list[Planned] = []
    base: dict[Any, Planned] = {}
    for line in lines:
        drawing = read_planned(line)
        found.append(drawing)
        if drawing.scored:
            sampled = read_planned(base_overrides(line, drawing.images))
            key = sampled.model.source, sampled.sampler
            base[key] = max(base.get(key, sampled), sampled, key=lambda each: each.images)
    return [*base.values(), *(drawing for drawing in found if drawing not in base.values())]


def call_cost(drawing: Drawing, calls: Calls) -> Cost:
    """What one of these calls costs."""
    pipe, tokens = drawing.model.pipe, tokens_of(drawing.model)
    with fake:
        inputs = unet_inputs(pipe.unet, calls.samples, calls.height, calls.width, tokens)
    if calls.differentiated:
        with fake:
            return cost_of(partial(differentiate, pipe, inputs), pipe.unet)
    on, method = calls.timestep is not None, drawing.method
    enabled: Any = method.enable(pipe, height=drawing.height, width=drawing.width) if on else nullcontext()  # type: ignore[attr-defined]
    with enabled, fake, torch.no_grad():
        return cost_of(partial(pipe.unet, timestep=calls.timestep or 0.0, **inputs), pipe.unet)


def differentiate(pipe: Any, inputs: dict[str, Any]) -> None:
    """The gradient of the decoded prediction by the latent, as SyncDiffusion takes it."""
    inputs["sample"].requires_grad_()
    prediction = pipe.unet(**inputs, timestep=0.0).sample
    picture = pipe.vae.decode(prediction.chunk(2)[0].to(pipe.vae.dtype)).sample
    picture.sum().backward()


def decoding_cost(drawing: Drawing, pictures: int) -> Cost:
    """What decoding a batch costs."""
    pipe, factor = drawing.model.pipe, pixels_per_cell(drawing.model.pipe)
    tiled = drawing.model.tiles(drawing.height, drawing.width)
    with fake, torch.no_grad(), tiled_decoding(pipe.vae) if tiled else nullcontext():
        shape = pictures, pipe.vae.config.latent_channels, drawing.height // factor, drawing.width // factor
        return cost_of(partial(pipe.vae.decode, torch.zeros(*shape, dtype=pipe.vae.dtype)), pipe.unet)


def plan_cell(drawing: Planned) -> Plan:
    """ValueError for a method that does not say which calls it makes."""
    if not hasattr(drawing.method, "calls"):
        raise ValueError(f"{drawing.method_name} cannot be planned: it does not say its calls (Method.calls)")
    batch = min(drawing.batch_size, drawing.images)
    request = Request(["a"] * batch, list(range(batch)), drawing.height, drawing.width, drawing.sampler)
    calls = drawing.method.calls(drawing.model.pipe, request)
    costs = [(each.times, call_cost(drawing, each)) for each in calls]
    costs.append((1, decoding_cost(drawing, batch)))
    weights = sum(
        parameter.nbytes
        for part in drawing.model.pipe.components.values()
        if isinstance(part, torch.nn.Module)
        for parameter in part.parameters()
    )
    return Plan(
        drawing=drawing,
        evaluations=sum(times * cost.evaluations for times, cost in costs) / batch,
        operations=tuple((cost.flops, times * cost.flops / batch) for times, cost in costs),
        memory=weights + max(cost.memory for _, cost in costs),
    )


def brief(value: float) -> str:
    """Three digits, and thousands that can be read."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def shown(plan: Plan, seconds: float) -> dict[str, str]:
    """One line of the table."""
    drawing = plan.drawing
    return {
        "resolution": f"{drawing.resolution} {drawing.height}x{drawing.width}",
        "method": drawing.method_name,
        "images": f"{drawing.images}",
        "U-Net evals": f"{plan.evaluations:.0f}",
        "TFLOPs/image": brief(plan.flops / 1e12),
        "memory GB": brief(plan.memory / 1e9) + (" !" if plan.memory > device_memory() else ""),
        "disk GB": brief(plan.disk / 1e9),
        "s/image": brief(seconds),
        "hours": brief(seconds * drawing.images / 3600),
    }


def plan(lines: Sequence[Sequence[str]]) -> str:
    """A table of what these cells would take, and what they would take together."""
    planned: list[Plan] = []
    refused: list[str] = []
    for drawing in tqdm(planned_cells(lines), desc="plan", unit="cell", leave=False):
        try:
            planned.append(plan_cell(drawing))
        except ValueError as error:
            refused.append(str(error))
    if not planned:
        raise ValueError("; ".join(refused))
    probes: dict[Any, Probe] = {}
    for model in {plan.drawing.model.source: plan.drawing.model for plan in planned}.values():
        sides = [max(p.drawing.height, p.drawing.width) for p in planned if p.drawing.model is model]
        probes[model.source] = probe(model, max(sides) // pixels_per_cell(model.pipe))
    seconds = [probes[p.drawing.model.source].seconds(p.operations) for p in planned]
    rows = [shown(p, s) for p, s in zip(planned, seconds, strict=True)]
    table = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
    hours = sum(s * p.drawing.images for p, s in zip(planned, seconds, strict=True)) / 3600
    return "\n".join([table, "", *notes(planned, probes, hours), *refused])


def notes(planned: Sequence[Plan], probes: dict[Any, Probe], hours: float) -> list[str]:
    """What the numbers of the table mean on this machine."""
    device, room = device_name(), f"{device_memory() / 1e9:.0f} GB"
    found = [f"Together: {brief(hours)} hours, {brief(sum(p.disk for p in planned) / 1e9)} GB of disk at most."]
    for source, made in probes.items():
        dtype = next(p.drawing.model.dtype for p in planned if p.drawing.model.source == source)
        if made.timed:
            flops, seconds = made.timed[-1]
            rate = f"{brief(flops / seconds / 1e12)} TFLOP/s on a pair of {made.largest}x{made.largest} cells"
            found.append(f"{source.name} on {device} in {dtype}: {rate}; larger calls are reckoned at that rate.")
        else:
            found.append(f"{source.name} does not fit into the {room} of {device}: not timed.")
    if any(p.memory > device_memory() for p in planned):
        found.append(f"!: more than the {room} of {device}.")
    found.append("Memory is of weights and tensors in one process; scoring, and prompts into text, are not counted.")
    return found
