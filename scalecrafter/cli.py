"""The command line: `scalecrafter generate PROMPT --model ID_OR_DIR ...`, `scalecrafter upscale IMAGE --model ...` and
`scalecrafter settings [NAME]`.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from scalecrafter import __version__
from scalecrafter.loading import load_pipeline
from scalecrafter.png import DTYPES, metadata, read_image, read_metadata, save_png
from scalecrafter.settings import Settings, available_settings

LATENT_PX = 8  # pixels of an image for each of its latent, along a side
RANGES = {"guidance_scale": (0, 1000), "eta": (0, 1), "scale": (1, 100), "strength": (0, 1)}


def show_settings(name: str | None) -> None:
    """Print the names of the shipped settings, or one of them with all layers expanded."""
    if name is None:
        print("\n".join(available_settings()))
    else:
        print(yaml.safe_dump(Settings.load(name).to_dict(), sort_keys=False), end="")


def check_options(arguments: argparse.Namespace) -> None:
    """ValueError for numbers that cannot be meant and settings that do not exist, before a model is loaded."""
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    for name in ("height", "width", "steps", "number"):
        if given.get(name, 1) < 1:
            raise ValueError(f"--{name} must be at least 1, not {given[name]}")
    for name, (least, most) in RANGES.items():
        if not least <= given.get(name, least) <= most:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} must be a number from {least} to {most}, not {given[name]:g}")
    if int(arguments.steps * given.get("strength", 1)) < 1:
        raise ValueError(
            f"--strength {arguments.strength:g} leaves none of {arguments.steps} steps: raise one of them"
        )
    if not -(2**63) <= arguments.seed <= 2**63 - arguments.number:
        raise ValueError(f"--seed is a number of 64 bits, not {arguments.seed}")
    if arguments.settings != "auto":
        Settings.load(arguments.settings)


def output_paths(arguments: argparse.Namespace) -> list[Path]:
    """Where each image goes: ``--out`` with the seed at its end if there are several.

    Raises, before sampling, which can take minutes:
        ValueError: no .png file, or an existing one without ``--force``.
        FileNotFoundError: no such folder.
    """
    path = arguments.out
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path} must end in .png: the settings are stored as PNG metadata")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} for the image: create it first (mkdir -p {path.parent})")
    seeds = range(arguments.seed, arguments.seed + arguments.number)
    paths = [path] if arguments.number == 1 else [path.with_stem(f"{path.stem}-{seed}") for seed in seeds]
    for each in paths:
        if each.exists() and not arguments.force:
            raise ValueError(f"{each} exists: choose another --out, or overwrite it with --force")
    return paths


def generate(arguments: argparse.Namespace) -> None:
    """Generate images of a prompt."""
    size = {"height": arguments.height, "width": arguments.width}
    write_images(arguments, size, size, (arguments.width, arguments.height))


def upscale(arguments: argparse.Namespace) -> None:
    """Enlarge an image, and denoise it at the new size, which is exact: up to 7 rows and columns that the latents need
    besides repeat the last ones, and are cut off again.
    """
    image = read_image(arguments.image).convert("RGB")
    width, height = (round(side * arguments.scale) for side in image.size)
    with room_for(height, width):
        enlarged = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
        padded = np.pad(enlarged, ((0, -height % LATENT_PX), (0, -width % LATENT_PX), (0, 0)), mode="edge")
    given = {"image": Image.fromarray(padded), "strength": arguments.strength}
    write_images(arguments, {"height": len(padded), "width": padded.shape[1]}, given, (width, height))


def write_images(
    arguments: argparse.Namespace, size: dict[str, int], given: dict[str, Any], kept: tuple[int, int]
) -> None:
    """Sample the images one by one, with what is ``given`` to the pipeline, and write the (width, height) that is
    ``kept`` of each as PNG, whose metadata is what generates it again.
    """
    import torch

    from scalecrafter.enable import enable
    from scalecrafter.pipeline import model_family

    paths = output_paths(arguments)
    pipe = load_pipeline(arguments)
    if arguments.guidance_scale is None:
        arguments.guidance_scale = 5.0 if model_family(pipe.unet) == "sdxl" else 7.5
    if arguments.eta and "eta" not in inspect.signature(pipe.scheduler.step).parameters:
        raise ValueError(f"{type(pipe.scheduler).__name__} has no --eta: use --scheduler DDIM")
    with enable(pipe, **size, settings=arguments.settings) as handle:
        for seed, path in enumerate(paths, start=arguments.seed):
            with room_for(**size):
                image = pipe(
                    arguments.prompt,
                    negative_prompt=arguments.negative_prompt,
                    num_inference_steps=arguments.steps,
                    guidance_scale=arguments.guidance_scale,
                    eta=arguments.eta,
                    generator=torch.Generator("cpu").manual_seed(seed),
                    **given,
                ).images[0]
            save_png(image.crop((0, 0, *kept)), path, metadata(arguments, seed, handle.settings))
            print(path)


@contextmanager
def room_for(height: int, width: int) -> Iterator[None]:
    """ValueError if memory runs out inside."""
    from scalecrafter.memory import is_out_of_memory

    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(
            f"{height}x{width} (height x width) does not fit into memory: take a smaller size, or half precision "
            "(--dtype float16, on a CPU bfloat16)"
        ) from error


def build_parser(stored: Mapping[str, Any] | None = None) -> argparse.ArgumentParser:
    """The parser; ``stored`` arguments of `generate` replace defaults."""
    parser = argparse.ArgumentParser(
        prog="scalecrafter", description="Sample above the training resolution of a diffusion model."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("settings", help="list the shipped settings, or show one")
    listing.add_argument("name", nargs="?")
    sample = commands.add_parser("generate", help="generate images of a prompt")
    sample.add_argument("prompt", nargs="?")
    sample.add_argument(
        "--from", type=Path, dest="source", metavar="PNG", help="take what is not given here from a generated image"
    )
    sample.add_argument("--height", type=int, help="pixels")
    sample.add_argument("--width", type=int, help="pixels")
    enlarge = commands.add_parser("upscale", help="enlarge an image, and denoise it at the new size")
    enlarge.add_argument("image", type=Path)
    enlarge.add_argument("--prompt", default="", help="what the image shows")
    enlarge.add_argument("--scale", type=float, default=2.0, help="of both sides (default: 2)")
    enlarge.add_argument("--strength", type=float, default=0.5, help="share of the steps: 0 to 1 (default: 0.5)")
    for command in (sample, enlarge):
        add_sampling(command.add_argument)
    sample.set_defaults(**(stored or {}))
    return parser


def add_sampling(add: Callable[..., Any]) -> None:
    """The options that both ways of sampling have."""
    add("--model", help="folder of a diffusers pipeline, or a hub id")
    add("--variant", help="of the weight files, as fp16")
    add("--lora", help="folder or file of LoRA weights, or a hub id")
    add("--settings", default="auto", help="auto, a shipped name or a YAML file")
    add("--negative-prompt")
    add("--scheduler", help="of diffusers, as DDIM or DPMSolverMultistep (default: the pipeline's own)")
    add("--steps", type=int, default=50)
    add("--guidance-scale", type=float, help="default: 7.5, for SDXL 5")
    add("--eta", type=float, default=0.0, help="noise of DDIM: 0 to 1 (default: 0)")
    add("--seed", type=int, default=0)
    add("--number", type=int, default=1, help="images, of consecutive seeds (default: 1)")
    add("--dtype", choices=DTYPES, default="auto")
    add("--out", type=Path, default=Path("image.png"))
    add("--force", action="store_true", help="overwrite existing files")


REQUIRED = {"generate": ("prompt", "model", "height", "width"), "upscale": ("model",), "settings": ()}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments; those of ``--from`` stand in for what is not given. ValueError if one is missing."""
    arguments = build_parser().parse_args(argv)
    source = getattr(arguments, "source", None)
    if source is not None:
        arguments = build_parser(read_metadata(source)).parse_args(argv)
    missing = [name for name in REQUIRED[arguments.command] if getattr(arguments, name) is None]
    if missing:
        raise ValueError(f"missing: {', '.join(name if name == 'prompt' else f'--{name}' for name in missing)}")
    return arguments


def one_line(error: Exception, longest: int = 4000) -> str:
    """The message without line ends and what a terminal would obey; its middle is left out if it is longer."""
    text = " ".join(str(error).split())
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return shown if len(shown) <= longest else f"{shown[: longest // 2]} ... {shown[-longest // 2 :]}"


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, or 2 with one line on stderr."""
    try:
        arguments = parse(argv)
        if arguments.command == "settings":
            show_settings(arguments.name)
        else:
            check_options(arguments)
            {"generate": generate, "upscale": upscale}[arguments.command](arguments)
    except (ValueError, OSError) as error:
        print(f"scalecrafter: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
