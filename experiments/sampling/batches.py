"""Sampling batch by batch. All batches of a run have one shape, so that an image does not depend on which others were
still missing: the last is filled up with copies whose images are dropped. Only a GPU without memory for that shape
makes the batches smaller, and each record says how large its batch was.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from baselines.method import Request
from experiments.cost.counting import counted_evaluations
from experiments.prompts import Prompt, prompt_seed
from experiments.sampling.manifest import NAME, Record, append_line, remember_images, save_image
from experiments.setup.identity import environment
from experiments.setup.runs import Run
from experiments.setup.stopping import unbroken
from scalecrafter.memory import is_out_of_memory

log = logging.getLogger(__name__)

Batch = tuple[NDArray[np.uint8], dict[str, Any]]  # images (N, height, width, 3), and what they cost
Progress = Callable[[int, int], None]  # takes the number of images that there are, and of all


def no_progress(done: int, total: int) -> None:
    """Tells nobody."""


def generate_missing(
    run: Run,
    prompts: Sequence[Prompt],
    done: set[str],
    folder: Path,
    manifest: str = NAME,
    progress: Progress = no_progress,
) -> list[Record]:
    """Generate the images of those prompts whose id is not ``done``, into a manifest of ``folder``; returns theirs.
    ``progress`` is told after each batch.

    Raises:
        ValueError: there is no memory for a single image.
    """
    pending, found, size = [prompt for prompt in prompts if prompt.id not in done], [], run.batch_size
    label = f"{run.method_name} {run.resolution} {run.height}x{run.width}"
    log.debug("%s: %d of %d images to generate in %s", label, len(pending), len(prompts), folder)
    ready = len(prompts) - len(pending)
    with tqdm(total=len(prompts), initial=ready, desc=label, unit="img", disable=not pending) as bar:
        while pending:
            batch = pending[:size]
            sampled = sample_if_it_fits(run, batch, size)
            if sampled is None:
                size //= 2
                log.warning("%s: out of memory, going on with batches of %d", label, size)
                continue
            with unbroken():
                found += save_batch(run, batch, size, sampled, folder, manifest)
            pending = pending[len(batch) :]
            bar.update(len(batch))
            progress(ready + len(found), len(prompts))
    remember_images(folder, found)
    return found


def sample_if_it_fits(run: Run, prompts: Sequence[Prompt], size: int) -> Batch | None:
    """`sample_batch`; None if there was no memory for more than one image, which then is free again.

    Raises:
        ValueError: there is no memory for a single image.
    """
    try:
        return sample_batch(run, prompts, size)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if size == 1:
            raise ValueError(
                f"out of memory for one image of {run.height}x{run.width}: take a smaller resolution or model.dtype, "
                f"or multidiffusion.window_batch=1 ({' '.join(str(error).split())})"
            ) from error
    gc.collect()  # here, where the error and the tensors of its frames are gone
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return None


def sample_batch(run: Run, prompts: Sequence[Prompt], size: int) -> Batch:
    """Sample the prompts in a batch of ``size``, and count what one of its images costs."""
    filled = [*prompts, *[prompts[-1]] * (size - len(prompts))]
    seeds = [prompt_seed(run.seed, prompt.id) for prompt in filled]
    request = Request([prompt.text for prompt in filled], seeds, run.height, run.width, run.sampler)
    pipe = run.model.load()
    started = time.perf_counter()
    with counted_evaluations(pipe.unet) as evaluations, run.model.decoding(run.height, run.width):
        images = run.method.generate(pipe, request)[: len(prompts)]
    share = len(prompts) / size
    cost = {"images": len(prompts), "batch": size, "seconds": round(share * (time.perf_counter() - started), 3)}
    return images, cost | {"unet_evaluations": share * sum(evaluations)}


def save_batch(
    run: Run, prompts: Sequence[Prompt], size: int, sampled: Batch, folder: Path, manifest: str
) -> list[Record]:
    """Save the images of a batch, with a line on where and at what cost."""
    images, cost = sampled
    append_line(folder / manifest.replace("manifest", "costs"), {**cost, "dtype": run.model.dtype, **environment()})
    return [
        save_image(
            folder,
            image,
            prompt_id=prompt.id,
            prompt=prompt.text,
            seed=prompt_seed(run.seed, prompt.id),
            batch=size,
            manifest=manifest,
        )
        for image, prompt in zip(images, prompts, strict=True)
    ]
