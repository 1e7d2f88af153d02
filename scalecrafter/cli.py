"""The command line: `scalecrafter generate PROMPT --model ID_OR_DIR ...` and `scalecrafter settings [NAME]`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from PIL.PngImagePlugin import PngInfo
from safetensors import SafetensorError

from scalecrafter.settings import Settings, available_settings


def show_settings(name: str | None) -> None:
    """Print the names of the shipped settings, or one of them with all layers expanded."""
    if name is None:
        print("\n".join(available_settings()))
    else:
        print(yaml.safe_dump(Settings.load(name).to_dict(), sort_keys=False), end="")


def load_pipeline(model: str, dtype: str) -> Any:
    """The text-to-image pipeline of a local folder or hub id, from safetensors only, on a GPU if there is one.

    Raises:
        ValueError: a damaged weights file.
    """
    import torch
    from diffusers import AutoPipelineForText2Image

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = {"auto": torch.float16 if device == "cuda" else torch.float32}.get(dtype) or getattr(torch, dtype)
    try:
        pipe = AutoPipelineForText2Image.from_pretrained(model, use_safetensors=True)
    except SafetensorError as error:
        raise ValueError(f"a weights file of {model} is damaged ({error}): copy or download it again") from error
    return pipe.to(device, kind)


def check_output(path: Path) -> None:
    """Fail before sampling, which can take minutes, if the image could not be written."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path} must end in .png: the settings are stored as PNG metadata")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} for the image: create it first (mkdir -p {path.parent})")


def generate(arguments: argparse.Namespace) -> None:
    """Generate one image and write it as PNG, with the settings in its metadata."""
    import torch

    from scalecrafter.enable import enable

    check_output(arguments.out)
    if arguments.steps < 1:
        raise ValueError(f"--steps must be at least 1, not {arguments.steps}")
    pipe = load_pipeline(arguments.model, arguments.dtype)
    with enable(pipe, height=arguments.height, width=arguments.width, settings=arguments.settings) as handle:
        image = pipe(
            arguments.prompt,
            height=arguments.height,
            width=arguments.width,
            num_inference_steps=arguments.steps,
            guidance_scale=arguments.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(arguments.seed),
        ).images[0]
    image.save(arguments.out, pnginfo=metadata(arguments, handle.settings))
    print(arguments.out)


def metadata(arguments: argparse.Namespace, settings: Settings) -> PngInfo:
    """PNG text chunks: the prompt, and all arguments with the resolved settings as JSON."""
    info = PngInfo()
    values = {k: str(v) if isinstance(v, Path) else v for k, v in vars(arguments).items() if k != "command"}
    info.add_text("prompt", arguments.prompt)
    info.add_text("scalecrafter", json.dumps(values | {"settings": settings.to_dict()}))
    return info


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scalecrafter", description="Sample above the training resolution of a diffusion model."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("settings", help="list the shipped settings, or show one")
    listing.add_argument("name", nargs="?")
    sample = commands.add_parser("generate", help="generate one image")
    sample.add_argument("prompt")
    sample.add_argument("--model", required=True, help="folder of a diffusers pipeline, or a hub id")
    sample.add_argument("--height", type=int, required=True, help="pixels")
    sample.add_argument("--width", type=int, required=True, help="pixels")
    sample.add_argument("--out", type=Path, default=Path("image.png"))
    sample.add_argument("--settings", default="auto", help="auto, a shipped name or a YAML file")
    sample.add_argument("--steps", type=int, default=50)
    sample.add_argument("--guidance-scale", type=float, default=7.5)
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--dtype", choices=("auto", "float32", "float16", "bfloat16"), default="auto")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, or 2 with one line on stderr."""
    arguments = build_parser().parse_args(argv)
    try:
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
