"""`python -m experiments.run [overrides]`: draw one cell, then score it. `-m` sweeps, a job for each combination of
what is listed, or for each cell of an experiment. Running again resumes; `plan=true` says what it would take.

python -m experiments.run model=scenes method=scalecrafter resolution=x4 prompts.limit=64
python -m experiments.run -m experiment=ablate_tau
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import hydra
import torch
import yaml
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from tqdm import tqdm

from experiments.command import command
from experiments.config import CONF, Cell, base_overrides, build_cell, compose_config
from experiments.experiment import cell_line, read_experiment
from experiments.failures import outcome, write_failure
from experiments.manifest import Record, add_picture, read_records, write_atomically, write_records
from experiments.plan import plan
from experiments.prompts import Prompt, prompt_seed
from experiments.score import check_scorable, score_cell
from experiments.tracking import log_cell
from experiments.work import counted_evaluations
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
    base = build_cell(compose_config(base_overrides(overrides, len(cell.prompts))))
    base_folder = draw_cell(base)
    if base.folder != cell.folder:
        draw_cell(cell)
    log_cell(cell, score_cell(cell, base_folder))
    return cell.folder


def single(overrides: Sequence[str]) -> None:
    """One cell, or the plan of it, or of all cells of an experiment."""
    config = compose_config(overrides)
    if config.plan and "experiment" in config and config.cell is None:
        print(plan(read_experiment(overrides).lines))
    elif config.plan:
        print(plan([cell_line(overrides)]))
    else:
        print(run_cell(cell_line(overrides)))


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def job(config: DictConfig) -> None:
    """One job of a sweep. That it fails is recorded, so that the others go on."""
    overrides = list(HydraConfig.get().overrides.task)
    try:
        single(overrides)
    except (ValueError, OSError) as error:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise
        write_failure(Path(HydraConfig.get().runtime.output_dir), overrides, error)


def sweep(arguments: Sequence[str]) -> None:
    """What Hydra's own options ask for. Of `experiment=NAME` each cell becomes a job."""
    cells: list[str] = []
    chosen = [argument for argument in arguments if argument.startswith("experiment")]
    named = any(argument.startswith("cell=") for argument in arguments)
    if chosen and not named and {"-m", "--multirun"} & set(arguments):
        cells = [f"cell=range({len(read_experiment(chosen).lines)})"]
    sys.argv[1:] = [*arguments, *cells]
    job()
    if outcome.failed:
        count = f"{len(outcome.failed)} of {outcome.jobs} jobs failed"
        raise ValueError(f"{count}, the others are complete: {'; '.join(outcome.failed)}")


def main(arguments: Sequence[str]) -> None:
    """Hydra where there are options, else one cell."""
    if any(argument.startswith("-") for argument in arguments):
        sweep(arguments)
    else:
        single(arguments)


if __name__ == "__main__":
    command(main)
