"""Finished runs without sampling: flat images instead of a model's, to measure or test what comes after."""

from __future__ import annotations

import numpy as np

from experiments.prompts import prompt_seed
from experiments.sampling.generate import prepare_folder
from experiments.sampling.manifest import save_image
from experiments.setup.runs import Run


def fill_run(run: Run) -> None:
    """Complete a run that has not begun with an image of one colour for each prompt, each another one."""
    prepare_folder(run)
    for index, prompt in enumerate(run.prompts):
        colour = [index * 7 % 256, index // 256 % 256, (index * 31 + run.seed) % 256]
        image = np.full((run.height, run.width, 3), colour, np.uint8)
        seed = prompt_seed(run.seed, prompt.id)
        save_image(run.folder, image, prompt_id=prompt.id, prompt=prompt.text, seed=seed)
