"""`python -m experiments.demo.two_stage [OVERRIDE ...]`: the two-stage flow of docs/pipelines.md beside what it starts
from, for the first prompts of a configuration, in one picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoPipelineForImage2Image
from PIL import Image
from PIL.Image import Image as PILImage
from tqdm import tqdm

from baselines.direct import Direct
from baselines.method import Request
from baselines.scalecrafter import ScaleCrafter
from experiments.demo.sheet import Block, Cell, check_picture, draw_sheet, write_picture
from experiments.prompts import Prompt, prompt_seed
from experiments.setup.command_line import command
from experiments.setup.compose import compose_config
from experiments.setup.runs import Run, build_run
from scalecrafter.pipeline import training_size

PROMPTS, SIDE = 3, 256
TITLES = ("base sample, enlarged", "direct", "two stages, plain model", "two stages, ScaleCrafter")


def drawn(run: Run, prompt: Prompt, strength: float) -> list[PILImage]:
    """An image for each of `TITLES`, all of the run's size."""
    pipe, seed = run.model.load(), prompt_seed(run.seed, prompt.id)
    height, width = training_size(pipe)
    request = Request([prompt.text], [seed], run.height, run.width, run.sampler)
    base, direct = (
        Image.fromarray(Direct().generate(pipe, each)[0])
        for each in (replace(request, height=height, width=width), request)
    )
    enlarged = base.resize(direct.size, Image.Resampling.LANCZOS)
    second = AutoPipelineForImage2Image.from_pipe(pipe)
    second.set_progress_bar_config(disable=True)

    def sampled_again(method: Any) -> PILImage:
        with method.enable(pipe, height=run.height, width=run.width) if method else nullcontext():
            found: PILImage = second(
                prompt.text,
                image=enlarged,
                strength=strength,
                generator=torch.Generator("cpu").manual_seed(seed),
                num_inference_steps=run.sampler.steps,
                guidance_scale=run.sampler.guidance_scale,
                eta=run.sampler.eta,
            ).images[0]
        return found

    return [enlarged, direct, sampled_again(None), sampled_again(run.method)]


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.demo.two_stage", description=__doc__)
    parser.add_argument("--strength", type=float, default=0.9, help="of the second stage, 0 to 1 (default: 0.9)")
    parser.add_argument("--out", type=Path, default=Path("results/two_stage.jpg"), help="a .jpg or .png file")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, as resolution=x16")
    arguments = parser.parse_args(argv)
    check_picture(arguments.out)
    if not 0 < arguments.strength <= 1:
        raise ValueError(f"--strength is above 0 and at most 1, not {arguments.strength:g}")
    own = ["metrics=none", f"prompts.limit={PROMPTS}"]
    run = build_run(compose_config([*own, *arguments.overrides]))
    if not isinstance(run.method, ScaleCrafter):
        raise ValueError(f"the second stage takes method=scalecrafter, not {run.method_name}")
    blocks = []
    for prompt in tqdm(run.prompts, desc="two stages", unit="prompt"):
        images = drawn(run, prompt, arguments.strength)
        cells = [Cell(image, title) for image, title in zip(images, TITLES, strict=True)]
        blocks.append(Block(prompt.text, cells))
    text = f"{run.model.name}, {run.height}x{run.width}, strength {arguments.strength:g}, {run.sampler.steps} steps."
    write_picture(draw_sheet(blocks, [text], SIDE, 1), arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    command(main)
