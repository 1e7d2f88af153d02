"""`python -m experiments.demo.preview [--prompt TEXT] [--seed N] [OVERRIDE ...]`: one prompt, all methods, two sizes,
one picture, within a budget of seconds.

Methods, sizes and recipe are those of experiment=field, unless overrides say otherwise. Direct inference and
ScaleCrafter come first, at all sizes; then the others at the smaller size and then at the larger one, the cheapest
first. What does not fit into the budget any more is left out, and its place in the picture says why.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from baselines.sampler import SCHEDULERS
from experiments.cost.planning import planned_calls, planned_evaluations
from experiments.demo.sheet import Block, Cell, check_picture, draw_sheet, write_picture
from experiments.prompts import Prompt
from experiments.results.reading import CONTROLS
from experiments.sampling.batches import sample_if_it_fits
from experiments.setup.command_line import command, one_line
from experiments.setup.compose import compose_config
from experiments.setup.grid import named_experiment, read_grid
from experiments.setup.identity import environment
from experiments.setup.runs import Run, base_run, build_run
from scalecrafter.pipeline import training_size

BUDGET = 100.0  # seconds, so that with its imports the command takes less than two minutes
FIRST = ("direct", "scalecrafter")
GRADIENT = 5.0  # time of a call that is differentiated as well, in plain calls: seen with SyncDiffusion on a CPU
SIDE, CELLS = 190, 8  # pixels of a cell, and cells side by side: not quite 1600 pixels


@dataclass
class Entry:
    """A method at a size: what it is planned to cost, in U-Net evaluations and in time (that of plain evaluations),
    and its cell. ``run`` is None where the method cannot sample so.
    """

    method: str
    resolution: str
    run: Run | None = None
    evaluations: float = 0.0
    work: float = 0.0
    cell: Cell | None = None


def read_entries(overrides: Sequence[str]) -> list[Entry]:
    """An entry for each row of the grid. One that its method refuses has a cell that says why.

    Raises:
        ValueError: none can be sampled.
        FileNotFoundError: the model or the prompts are missing.
    """
    entries = []
    for row in read_grid(overrides).rows:
        config = compose_config(row.overrides)
        if config.method.name in CONTROLS:
            continue
        entry = Entry(config.method.name, config.resolution.name)
        try:
            entry.run = build_run(config)
            entry.evaluations, entry.work = planned_work(entry.run)
        except ValueError as error:
            entry.run, entry.cell = None, Cell(None, one_line(error))
        entries.append(entry)
    if all(entry.run is None for entry in entries):
        raise ValueError(entries[0].cell.text if entries and entries[0].cell else "the command line has no method")
    return entries


def planned_work(run: Run) -> tuple[float, float]:
    """U-Net evaluations of an image, and how long they take compared with plain ones."""
    found = [(planned_evaluations(run, each), each.differentiated) for each in planned_calls(run, 1)]
    return sum(e for e, _ in found), sum(e * (GRADIENT if gradient else 1) for e, gradient in found)


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """Those that can be sampled, in the order in which they are."""

    def place(entry: Entry) -> tuple[int, int, float]:
        assert entry.run is not None
        pixels = entry.run.height * entry.run.width
        return (FIRST.index(entry.method), pixels, 0) if entry.method in FIRST else (len(FIRST), pixels, entry.work)

    return sorted((entry for entry in entries if entry.run is not None), key=place)


class Pace:
    """Seconds that entries take: at the pace of the first one at their size, which is direct inference."""

    def __init__(self, run: Run, seconds: float) -> None:
        """From the base sample."""
        self.latest = seconds / planned_work(run)[1]
        self.by_size: dict[str, float] = {}

    def learn(self, entry: Entry, seconds: float) -> None:
        self.latest = self.by_size.setdefault(entry.resolution, seconds / entry.work)

    def seconds(self, entry: Entry) -> float:
        return entry.work * self.by_size.get(entry.resolution, self.latest)

    def fitting(self, entries: Sequence[Entry], left: float) -> list[Entry]:
        """Those that fit into so many seconds, one after the other."""
        found = []
        for entry in entries:
            if (needed := self.seconds(entry)) <= left:
                found.append(entry)
                left -= needed
        return found


def sample(run: Run, prompt: Prompt) -> tuple[Cell, float]:
    """The image with its cost below it, and its seconds; ValueError as the method's."""
    batch = sample_if_it_fits(run, [prompt], 1)
    assert batch is not None  # one image raises where there is no memory
    images, cost = batch
    text = f"{run.resolution} · {cost['unet_evaluations']:.0f} evals · {brief(cost['seconds'])}"
    return Cell(Image.fromarray(images[0]), text), cost["seconds"]


def brief(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"


def fill(entries: Sequence[Entry], prompt: Prompt, pace: Pace, started: float, budget: float) -> None:
    """Sample what the budget allows, and say of the others what they would take."""
    pending = in_order(entries)
    with tqdm(desc="preview", bar_format="{desc}{percentage:3.0f}% {elapsed}, {remaining} left") as bar:
        while chosen := pace.fitting(pending, started + budget - time.perf_counter()):
            entry = chosen[0]
            assert entry.run is not None
            bar.total = bar.n + math.ceil(sum(each.work for each in chosen))
            bar.set_description(f"preview: {entry.method} {entry.resolution}")
            try:
                entry.cell, seconds = sample(entry.run, prompt)
                pace.learn(entry, seconds)
            except ValueError as error:
                entry.cell = Cell(None, one_line(error))
            pending.remove(entry)
            bar.update(entry.work)
    for entry in pending:
        needed = f"{entry.evaluations:.0f} evals, about {math.ceil(pace.seconds(entry))} s"
        entry.cell = Cell(None, f"{entry.resolution}: not sampled, {needed}")


def picture_blocks(entries: Sequence[Entry], base: Cell) -> list[Block]:
    """The base sample, then a block for each method, in the order of the grid but for those that are `FIRST`."""
    methods: dict[str, list[Cell]] = {name: [] for name in FIRST}
    for entry in entries:
        assert entry.cell is not None
        methods.setdefault(entry.method, []).append(entry.cell)
    blocks = [Block(name.replace("_", " "), cells) for name, cells in methods.items() if cells]
    return [Block("base sample", [base]), *blocks]


def caption(run: Run, prompt: Prompt, budget: float) -> list[str]:
    """What all images share, and what the numbers are."""
    height, width = training_size(run.model.shape)
    sampler, device = run.sampler, environment()["device"]
    scheduler = SCHEDULERS.get(sampler.scheduler or "", type(run.model.shape.scheduler).__name__)
    recipe = f"{scheduler.removesuffix('Scheduler')}, {sampler.steps} steps, guidance {sampler.guidance_scale:g}"
    if not torch.cuda.is_available():
        device += f", threads: {torch.get_num_threads()},"
    return [
        f'"{prompt.text}" (seed {run.seed}), by the model {run.model.name}, trained at {height}x{width}; {recipe}.',
        "All images are shown at one size; x4, x16: times the training area; evals: calls of the U-Net, in guidance "
        "pairs at the training size.",
        f"Seconds of one image on {device} in {run.model.dtype}; grey: left out to stay within {budget:g} s.",
    ]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.demo.preview", description="One prompt, all methods, two sizes, in one picture."
    )
    add = parser.add_argument
    add("--prompt", help="default: the first of the configured prompts")
    add("--seed", type=int, help="of the run (default: 0)")
    add("--budget", type=float, default=BUDGET, help=f"seconds for the whole command (default: {BUDGET:g})")
    add("--out", type=Path, help="a .jpg or .png file (default: results/preview.jpg)")
    add("overrides", nargs="*", help="Hydra overrides, as model=folder model.path=DIR method=direct,scalecrafter")
    return parser


def main(argv: Sequence[str]) -> None:
    started = time.perf_counter()
    arguments = build_parser().parse_args(argv)
    if arguments.prompt is not None and not arguments.prompt.strip():
        raise ValueError("--prompt is empty: say what the image shows")
    if not arguments.budget > 0:
        raise ValueError(f"--budget is a number of seconds above 0, not {arguments.budget:g}")
    own = [] if arguments.seed is None else [f"seed={arguments.seed}"]
    overrides = named_experiment(["prompts.limit=1", "metrics=none", *arguments.overrides, *own], "field")
    path = arguments.out or read_grid(overrides).results / "preview.jpg"
    check_picture(path)
    entries = read_entries(overrides)
    run = next(entry.run for entry in entries if entry.run is not None)
    prompt = run.prompts[0] if arguments.prompt is None else replace(run.prompts[0], text=arguments.prompt, scene=None)
    base, seconds = sample(base_run(run), prompt)
    fill(entries, prompt, Pace(base_run(run), seconds), started, arguments.budget)
    blocks = picture_blocks(entries, base)
    columns = max(1, CELLS // max(len(block.cells) for block in blocks))
    write_picture(draw_sheet(blocks, caption(run, prompt, arguments.budget), SIDE, columns), path)
    print(f"{path}: {sum(e.cell.image is not None for e in entries if e.cell)} of {len(entries)} images")


if __name__ == "__main__":
    command(main)
