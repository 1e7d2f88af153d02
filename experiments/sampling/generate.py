"""Generating a run: what is missing of its images, batch by batch, into its run folder."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tqdm import tqdm

from baselines.method import Request
from eval.files import write_atomically
from experiments.cost.counting import counted_evaluations, disk_needed
from experiments.prompts import Prompt, prompt_seed
from experiments.sampling.manifest import (
    NAME,
    Record,
    append_line,
    finished_ids,
    manifests,
    merge_manifests,
    read_records,
    remember_images,
    save_image,
)
from experiments.sampling.shards import one_shard, whole_run
from experiments.setup.identity import FILE, environment, identity_text
from experiments.setup.runs import Run
from scalecrafter.decode import tiled_decoding

log = logging.getLogger(__name__)


Progress = Callable[[int, int], None]  # takes the number of images that there are, and of all


def no_progress(done: int, total: int) -> None:
    """Tells nobody."""


def generate_run(run: Run, progress: Progress = no_progress) -> Path:
    """Generate what is missing of a run, or of the run's shard; returns its folder. Jobs that need the same run, as
    all need the base samples, wait for the first one that generates it. ``progress`` is told after each batch.
    """
    if not is_complete(run):
        run.model.load()  # before there is a folder: it says what is wrong with the weights
    prepare_folder(run)
    folder, trust = run.folder, not run.verify
    if run.shard is not None:
        with one_shard(folder, run.shard):
            records = read_records(folder, trust=trust)
            generate_missing(run, run.shard.of(run.prompts), records, f"manifest-{run.shard}.jsonl", progress)
        if not is_complete(run):
            return folder
    with whole_run(folder):
        records = read_records(folder, trust=trust)
        if missing_prompts(run.prompts, records) or len(manifests(folder)) > 1:
            merge_manifests(folder, records)
            records += generate_missing(run, run.prompts, records, NAME, progress)
            merge_manifests(folder, records)
    return folder


def prepare_folder(run: Run) -> None:
    """Make the run folder; an error if it holds another run or the disk is too small, and nothing is overwritten."""
    folder, text = run.folder, identity_text(run.identity)
    existing = folder / FILE
    if existing.exists() and existing.read_text(encoding="utf-8") != text:
        raise ValueError(f"{folder} holds a run with another configuration: move it away or set paths.runs")
    folder.parent.mkdir(parents=True, exist_ok=True)
    missing = {prompt.id for prompt in run.prompts} - finished_ids(folder)
    needed = disk_needed(run.height, run.width, len(missing))
    if shutil.disk_usage(folder.parent).free < needed:
        raise OSError(f"the disk of {folder.parent} has less than the {needed / 1e6:.0f} MB that this run may need")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    if not existing.exists():
        write_atomically(existing, text)
    if missing:
        write_atomically(folder / "environment.json", (json.dumps(environment(), indent=2) + "\n").encode())


def is_complete(run: Run) -> bool:
    """Whether every prompt has a line in the run's manifests; the images are not read."""
    return {prompt.id for prompt in run.prompts} <= finished_ids(run.folder)


def missing_prompts(prompts: Sequence[Prompt], records: Sequence[Record]) -> list[Prompt]:
    """The prompts without a record."""
    done = {record.id for record in records}
    return [prompt for prompt in prompts if prompt.id not in done]


def generate_missing(
    run: Run, prompts: Sequence[Prompt], records: Sequence[Record], manifest: str, progress: Progress = no_progress
) -> list[Record]:
    """Generate the images of those prompts that have no record yet; returns theirs."""
    pending, found = missing_prompts(prompts, records), []
    label = f"{run.method_name} {run.resolution} {run.height}x{run.width}"
    log.debug("%s: %d of %d images to generate in %s", label, len(pending), len(prompts), run.folder)
    done = len(prompts) - len(pending)
    with tqdm(total=len(prompts), initial=done, desc=label, unit="img", disable=not pending) as bar:
        for start in range(0, len(pending), run.batch_size):
            batch = pending[start : start + run.batch_size]
            found += generate_batch(run, batch, manifest)
            bar.update(len(batch))
            progress(done + len(found), len(prompts))
    remember_images(run.folder, found)
    return found


def generate_batch(run: Run, prompts: Sequence[Prompt], manifest: str = NAME) -> list[Record]:
    """Generate the images of some prompts and save them, with a line on where and at what cost."""
    seeds = [prompt_seed(run.seed, prompt.id) for prompt in prompts]
    request = Request([p.text for p in prompts], seeds, run.height, run.width, run.sampler)
    pipe, tiled = run.model.load(), run.model.tiles(run.height, run.width)
    started = time.perf_counter()
    with counted_evaluations(pipe.unet) as evaluations, tiled_decoding(pipe.vae) if tiled else nullcontext():
        images = run.method.generate(pipe, request)
    cost: dict[str, Any] = {"images": len(prompts), "seconds": round(time.perf_counter() - started, 3)}
    cost |= {"unet_evaluations": sum(evaluations), "device": environment()["device"], "dtype": run.model.dtype}
    append_line(run.folder / manifest.replace("manifest", "costs"), cost)
    return [
        save_image(run.folder, image, prompt_id=prompt.id, prompt=prompt.text, seed=seed, manifest=manifest)
        for image, prompt, seed in zip(images, prompts, seeds, strict=True)
    ]
