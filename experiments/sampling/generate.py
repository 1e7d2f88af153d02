"""Drawing a cell: what is missing of its pictures, batch by batch, into its run folder."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
import yaml
from tqdm import tqdm

from baselines.method import Request
from experiments.cost.counting import counted_evaluations
from experiments.prompts import Prompt, prompt_seed
from experiments.sampling.manifest import (
    NAME,
    Record,
    add_picture,
    disk_needed,
    manifests,
    read_records,
    recorded_ids,
    write_atomically,
    write_records,
)
from experiments.sampling.shards import drawing_share, drawing_whole
from experiments.setup.config import Cell
from scalecrafter.decode import tiled_decoding


def prepare_folder(cell: Cell) -> None:
    """Make the run folder; an error if another run lives there or the disk is too small, nothing overwritten."""
    folder, text = cell.folder, yaml.safe_dump(cell.identity, sort_keys=True)
    existing = folder / "config.yaml"
    if existing.exists() and existing.read_text(encoding="utf-8") != text:
        raise ValueError(f"{folder} holds a run with another configuration: move it away or set paths.runs")
    folder.parent.mkdir(parents=True, exist_ok=True)
    needed = disk_needed(cell.height, cell.width, len(cell.prompts))
    if shutil.disk_usage(folder.parent).free < needed:
        raise OSError(f"the disk of {folder.parent} has less than the {needed / 1e6:.0f} MB this run may need")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    write_atomically(existing, text.encode())
    write_atomically(folder / "environment.json", (json.dumps(environment(), indent=2) + "\n").encode())


def environment() -> dict[str, str]:
    """Versions of what drew the pictures."""
    packages = ("torch", "diffusers", "transformers", "numpy")
    found = {name: importlib.metadata.version(name) for name in packages}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {"python": platform.python_version(), "device": device, **found}


def draw_batch(cell: Cell, prompts: Sequence[Prompt], manifest: str = NAME) -> list[Record]:
    """Draw some prompts and put them on disk, with a line on how long it took."""
    seeds = [prompt_seed(cell.seed, prompt.id) for prompt in prompts]
    request = Request([p.text for p in prompts], seeds, cell.height, cell.width, cell.sampler)
    started = time.perf_counter()
    pipe, tiled = cell.model.pipe, cell.model.tiles(cell.height, cell.width)
    with counted_evaluations(pipe.unet) as evaluations, tiled_decoding(pipe.vae) if tiled else nullcontext():
        images = cell.method.generate(pipe, request)
    cost = {"images": len(prompts), "seconds": round(time.perf_counter() - started, 3)}
    with (cell.folder / manifest.replace("manifest", "costs")).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(cost | {"unet_evaluations": sum(evaluations)}) + "\n")
    return [
        add_picture(cell.folder, image, prompt_id=prompt.id, prompt=prompt.text, seed=seed, manifest=manifest)
        for image, prompt, seed in zip(images, prompts, seeds, strict=True)
    ]


def draw_cell(cell: Cell) -> Path:
    """Draw what is missing of a cell, or of the cell's share of it; returns its folder. Jobs that need the same, as
    all need the samples of training size, wait for the first one that draws it.
    """
    prepare_folder(cell)
    folder = cell.folder
    if cell.share is not None:
        with drawing_share(folder, cell.share):
            draw_missing(cell, cell.share.of(cell.prompts), read_records(folder), f"manifest-{cell.share}.jsonl")
        if not is_drawn(cell):
            return folder
    with drawing_whole(folder):
        records = read_records(folder)
        if lacking(cell.prompts, records) or len(manifests(folder)) > 1:
            write_records(folder, records)
            records += draw_missing(cell, cell.prompts, records, NAME)
            write_records(folder, records)
    return folder


def is_drawn(cell: Cell) -> bool:
    """Whether every prompt has a line in the run's manifests; the pictures are not looked at."""
    return {prompt.id for prompt in cell.prompts} <= recorded_ids(cell.folder)


def lacking(prompts: Sequence[Prompt], records: Sequence[Record]) -> list[Prompt]:
    """The prompts without a record."""
    done = {record.id for record in records}
    return [prompt for prompt in prompts if prompt.id not in done]


def draw_missing(cell: Cell, prompts: Sequence[Prompt], records: Sequence[Record], manifest: str) -> list[Record]:
    """Draw those of the prompts that have no record yet; returns theirs."""
    pending, found = lacking(prompts, records), []
    label = f"{cell.method_name} {cell.resolution} {cell.height}x{cell.width}"
    done = len(prompts) - len(pending)
    with tqdm(total=len(prompts), initial=done, desc=label, unit="img", disable=not pending) as bar:
        for start in range(0, len(pending), cell.batch_size):
            batch = pending[start : start + cell.batch_size]
            found += draw_batch(cell, batch, manifest)
            bar.update(len(batch))
    return found
