"""`python -m experiments.run [overrides]`: draw one cell, then score it. `-m` sweeps. Running again resumes.

python -m experiments.run model=scenes method=scalecrafter resolution=x4 prompts.limit=64
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hydra
import torch
import yaml
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from tqdm import tqdm

from experiments.command import command
from experiments.config import CONF, Cell, base_overrides, build_cell, compose_config
from experiments.manifest import Record, add_picture, read_records, write_atomically, write_records
from experiments.prompts import Prompt, prompt_seed
from experiments.score import check_scorable, score_cell
from experiments.tracking import log_cell
from scalecrafter.decode import tiled_decoding
from scalecrafter.method import Request


def prepare_folder(cell: Cell) -> None:
    """Make the run folder; an error if another run lives there or the disk is too small, nothing overwritten."""
    folder, text = cell.folder, yaml.safe_dump(cell.identity, sort_keys=True)
    existing = folder / "config.yaml"
    if existing.exists() and existing.read_text(encoding="utf-8") != text:
        raise ValueError(f"{folder} holds a run with another configuration: move it away or set paths.runs")
    folder.parent.mkdir(parents=True, exist_ok=True)
    needed = 3 * cell.height * cell.width * len(cell.prompts)
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


@contextmanager
def counted_evaluations(unet: Any) -> Iterator[list[float]]:
    """Fills a list with the work of each U-Net call, in guidance pairs at the training size: a pair at four times the
    area counts four.
    """
    cells = unet.config.sample_size
    trained = cells**2 if isinstance(cells, int) else cells[0] * cells[1]
    found: list[float] = []

    def count(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        samples, _, rows, columns = args[0].shape
        found.append(samples / 2 * rows * columns / trained)

    hook = unet.conv_in.register_forward_pre_hook(count)
    try:
        yield found
    finally:
        hook.remove()


def draw_batch(cell: Cell, prompts: Sequence[Prompt]) -> list[Record]:
    """Draw some prompts and put them on disk, with a line on how long it took."""
    seeds = [prompt_seed(cell.seed, prompt.id) for prompt in prompts]
    request = Request([p.text for p in prompts], seeds, cell.height, cell.width, cell.sampler)
    started = time.perf_counter()
    pipe, tiled = cell.model.pipe, cell.model.tiles(cell.height, cell.width)
    with counted_evaluations(pipe.unet) as evaluations, tiled_decoding(pipe.vae) if tiled else nullcontext():
        images = cell.method.generate(pipe, request)
    cost = {"images": len(prompts), "seconds": round(time.perf_counter() - started, 3)}
    with (cell.folder / "costs.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(cost | {"unet_evaluations": sum(evaluations)}) + "\n")
    return [
        add_picture(cell.folder, image, prompt_id=prompt.id, prompt=prompt.text, seed=seed)
        for image, prompt, seed in zip(images, prompts, seeds, strict=True)
    ]


def draw_cell(cell: Cell) -> Path:
    """Draw what is missing of a cell; returns its folder. Jobs that need the same cell, as all need the samples of
    training size, wait for the first one that draws it.
    """
    prepare_folder(cell)
    with FileLock(cell.folder / ".lock"):
        return draw_missing(cell)


def draw_missing(cell: Cell) -> Path:
    records = read_records(cell.folder)
    done = {record.id for record in records}
    pending = [prompt for prompt in cell.prompts if prompt.id not in done]
    if pending:
        write_records(cell.folder, records)
        label = f"{cell.method_name} {cell.resolution} {cell.height}x{cell.width}"
        with tqdm(total=len(cell.prompts), initial=len(cell.prompts) - len(pending), desc=label, unit="img") as bar:
            for start in range(0, len(pending), cell.batch_size):
                records += draw_batch(cell, pending[start : start + cell.batch_size])
                bar.update(min(cell.batch_size, len(pending) - start))
        write_records(cell.folder, records)
    return cell.folder


def run_cell(overrides: Sequence[str]) -> Path:
    """Draw and score the cell of a command line, with the base-size samples that its scores need."""
    cell = build_cell(compose_config(overrides))
    if cell.metrics.extractor is None:
        return draw_cell(cell)
    check_scorable(cell)
    base = build_cell(compose_config(base_overrides(overrides, cell)))
    base_folder = draw_cell(base)
    if base.folder != cell.folder:
        draw_cell(cell)
    log_cell(cell, score_cell(cell, base_folder))
    return cell.folder


def single(overrides: Sequence[str]) -> None:
    print(run_cell(overrides))


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def sweep(config: DictConfig) -> None:
    print(run_cell(list(HydraConfig.get().overrides.task)))


if __name__ == "__main__":
    if any(argument.startswith("-") for argument in sys.argv[1:]):
        sweep()
    else:
        command(single)
