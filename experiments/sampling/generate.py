"""Generating a run: what is missing of its images, or of a shard's, into its run folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from eval.files import write_atomically
from experiments.cost.counting import disk_needed
from experiments.sampling.batches import Progress, generate_missing, no_progress
from experiments.sampling.manifest import (
    Record,
    finished_ids,
    first_environment,
    manifests,
    merge_manifests,
    read_records,
)
from experiments.sampling.shards import APART, gather_shards, one_shard, shard_folders, whole_run
from experiments.setup.identity import ENVIRONMENT, FILE, identity_text, recorded_environment
from experiments.setup.runs import Run


def generate_run(run: Run, progress: Progress = no_progress) -> Path:
    """Generate what is missing of a run, or of the run's shard; returns its folder. Jobs that need the same run, as
    all need the base samples, wait for the first one that generates it. ``progress`` is told after each batch.
    """
    if not is_complete(run):
        run.model.load()  # before there is a folder: it says what is wrong with the weights
    prepare_folder(run)
    folder = run.folder
    if run.shard is not None:
        generate_shard(run, progress)
        if run.apart or not is_complete(run):
            return folder
    with whole_run(folder, run.locks):
        gather_shards(folder)
        records = read_records(folder, trust=not run.verify)
        if {prompt.id for prompt in run.prompts} - ids_of(records) or len(manifests(folder)) > 1:
            merge_manifests(folder, records)
            records += generate_missing(run, run.prompts, ids_of(records), folder, progress=progress)
            merge_manifests(folder, records)
    return folder


def generate_shard(run: Run, progress: Progress = no_progress) -> None:
    """Generate what is missing of the run's shard, into a manifest or a folder of its own."""
    assert run.shard is not None
    folder, prompts, trust = run.folder, run.shard.of(run.prompts), not run.verify
    if run.apart:
        own = folder / APART / str(run.shard)
        (own / "images").mkdir(parents=True, exist_ok=True)
        records = read_records(own, trust=trust)
        merge_manifests(own, records)
        done = ids_of(records) | ids_of(read_records(folder, trust=trust))
        generate_missing(run, prompts, done, own, progress=progress)
    else:
        with one_shard(folder, run.shard):
            done = ids_of(read_records(folder, trust=trust))
            generate_missing(run, prompts, done, folder, f"manifest-{run.shard}.jsonl", progress)


def prepare_folder(run: Run) -> None:
    """Make the run folder; an error if it holds another run or the disk is too small, and nothing is overwritten."""
    folder, text = run.folder, identity_text(run.identity).encode()
    existing = folder / FILE
    if existing.exists() and existing.read_bytes() != text:
        raise ValueError(
            f"{folder} holds a run with another configuration: move it away or set paths.runs, or, if its {FILE} is "
            f"damaged, run python -m experiments.verify {folder} --repair"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = set.union(*map(finished_ids, [folder, *shard_folders(folder)]))
    needed = disk_needed(run.height, run.width, sum(prompt.id not in done for prompt in run.prompts))
    if shutil.disk_usage(folder.parent).free < needed:
        raise OSError(f"the disk of {folder.parent} has less than the {needed / 1e6:.0f} MB that this run may need")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    if not existing.exists():
        write_atomically(existing, text)
    if recorded_environment(folder) is None:  # of the first process; costs*.jsonl has that of every batch
        write_atomically(folder / ENVIRONMENT, json.dumps(first_environment(folder), indent=2) + "\n")


def is_complete(run: Run) -> bool:
    """Whether every prompt has a line in the run's manifests; the images are not read."""
    return {prompt.id for prompt in run.prompts} <= finished_ids(run.folder)


def ids_of(records: list[Record]) -> set[str]:
    return {record.id for record in records}
