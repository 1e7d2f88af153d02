"""The command line: `scalecrafter generate PROMPT --model ID_OR_DIR ...` and `scalecrafter settings [NAME]`."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors import SafetensorError

from scalecrafter.settings import Settings, available_settings


def show_settings(name: str | None) -> None:
    """Print the names of the shipped settings, or one of them with all layers expanded."""
    if name is None:
        print("\n".join(available_settings()))
    else:
        print(yaml.safe_dump(Settings.load(name).to_dict(), sort_keys=False), end="")


def load_pipeline(arguments: argparse.Namespace) -> Any:
    """The text-to-image pipeline of a local folder or hub id, from safetensors only, on a GPU if there is one, with
    the scheduler and LoRA that are asked for.

    Raises:
        ValueError: a damaged weights file, or a scheduler that the pipeline does not accept.
    """
    import diffusers
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    default = torch.float16 if device == "cuda" else torch.float32
    kind = default if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    name = "dtype" if diffusers.__version__ >= "0.42" else "torch_dtype"  # renamed in 0.42
    options = {name: kind, "variant": arguments.variant, "use_safetensors": True}
    try:
        pipe = diffusers.AutoPipelineForText2Image.from_pretrained(arguments.model, **options)
        if arguments.lora is not None:
            pipe.load_lora_weights(arguments.lora, use_safetensors=True)
    except SafetensorError as error:
        raise ValueError(
            f"a weights file of {arguments.model} or the LoRA is damaged ({error}): copy or download it again"
        ) from error
    if arguments.scheduler is not None:
        pipe.scheduler = find_scheduler(pipe, arguments.scheduler).from_config(pipe.scheduler.config)
    return pipe.to(device)


def find_scheduler(pipe: Any, name: str) -> Any:
    """The class of diffusers with this name, with or without "Scheduler" at its end; ValueError that lists what the
    pipeline accepts.
    """
    accepted = {kind.__name__: kind for kind in (*pipe.scheduler.compatibles, type(pipe.scheduler))}
    found = accepted.get(name) or accepted.get(f"{name}Scheduler")
    if found is None:
        known = ", ".join(sorted(each.removesuffix("Scheduler") for each in accepted))
        raise ValueError(f"--scheduler {name} is none that this pipeline accepts: {known}")
    return found


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
    """Generate the images one by one and write each as PNG, whose metadata is what generates it again."""
    import torch

    from scalecrafter.enable import enable
    from scalecrafter.pipeline import model_family

    for name in ("steps", "number"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} must be at least 1, not {getattr(arguments, name)}")
    paths = output_paths(arguments)
    pipe = load_pipeline(arguments)
    if arguments.guidance_scale is None:
        arguments.guidance_scale = 5.0 if model_family(pipe.unet) == "sdxl" else 7.5
    if arguments.eta and "eta" not in inspect.signature(pipe.scheduler.step).parameters:
        raise ValueError(f"{type(pipe.scheduler).__name__} has no --eta: use --scheduler DDIM")
    with enable(pipe, height=arguments.height, width=arguments.width, settings=arguments.settings) as handle:
        for seed, path in enumerate(paths, start=arguments.seed):
            image = pipe(
                arguments.prompt,
                negative_prompt=arguments.negative_prompt,
                height=arguments.height,
                width=arguments.width,
                num_inference_steps=arguments.steps,
                guidance_scale=arguments.guidance_scale,
                eta=arguments.eta,
                generator=torch.Generator("cpu").manual_seed(seed),
            ).images[0]
            image.save(path, pnginfo=metadata(arguments, seed, handle.settings))
            print(path)


NOT_STORED = ("command", "out", "number", "force", "source")


def metadata(arguments: argparse.Namespace, seed: int, settings: Settings) -> PngInfo:
    """PNG text chunks: the prompt, and all arguments with the resolved settings as JSON."""
    info = PngInfo()
    values = {name: value for name, value in vars(arguments).items() if name not in NOT_STORED}
    info.add_text("prompt", arguments.prompt)
    info.add_text("scalecrafter", json.dumps(values | {"seed": seed, "settings": settings.to_dict()}))
    return info


def read_metadata(path: Path) -> dict[str, Any]:
    """The arguments stored in an image; ValueError if it holds none."""
    with Image.open(path) as image:
        stored = getattr(image, "text", {}).get("scalecrafter")
    if stored is None:
        raise ValueError(f"{path} was not generated by scalecrafter: it has no such metadata")
    values: dict[str, Any] = json.loads(stored)
    return values


def build_parser(stored: Mapping[str, Any] | None = None) -> argparse.ArgumentParser:
    """The parser; ``stored`` arguments of `generate` replace defaults."""
    parser = argparse.ArgumentParser(
        prog="scalecrafter", description="Sample above the training resolution of a diffusion model."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("settings", help="list the shipped settings, or show one")
    listing.add_argument("name", nargs="?")
    sample = commands.add_parser("generate", help="generate images")
    add = sample.add_argument
    add("prompt", nargs="?")
    add("--from", type=Path, dest="source", metavar="PNG", help="take what is not given here from a generated image")
    add("--model", help="folder of a diffusers pipeline, or a hub id")
    add("--variant", help="of the weight files, as fp16")
    add("--lora", help="folder or file of LoRA weights, or a hub id")
    add("--height", type=int, help="pixels")
    add("--width", type=int, help="pixels")
    add("--settings", default="auto", help="auto, a shipped name or a YAML file")
    add("--negative-prompt")
    add("--scheduler", help="of diffusers, as DDIM or DPMSolverMultistep (default: the pipeline's own)")
    add("--steps", type=int, default=50)
    add("--guidance-scale", type=float, help="default: 7.5, for SDXL 5")
    add("--eta", type=float, default=0.0, help="noise of DDIM: 0 to 1 (default: 0)")
    add("--seed", type=int, default=0)
    add("--number", type=int, default=1, help="images, of consecutive seeds (default: 1)")
    add("--dtype", choices=("auto", "float32", "float16", "bfloat16"), default="auto")
    add("--out", type=Path, default=Path("image.png"))
    add("--force", action="store_true", help="overwrite existing files")
    sample.set_defaults(**(stored or {}))
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments; those of ``--from`` stand in for what is not given. ValueError if one is missing."""
    arguments = build_parser().parse_args(argv)
    if arguments.command != "generate":
        return arguments
    if arguments.source is not None:
        arguments = build_parser(read_metadata(arguments.source)).parse_args(argv)
    missing = [name for name in ("prompt", "model", "height", "width") if getattr(arguments, name) is None]
    if missing:
        raise ValueError(f"missing: {', '.join(name if name == 'prompt' else f'--{name}' for name in missing)}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, or 2 with one line on stderr."""
    try:
        arguments = parse(argv)
        if arguments.command == "settings":
            show_settings(arguments.name)
        else:
            generate(arguments)
    except (ValueError, OSError) as error:
        print(f"scalecrafter: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
