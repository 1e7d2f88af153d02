"""The pipeline that a command line names."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scalecrafter.pipeline import dtype_argument

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


def load_pipeline(arguments: argparse.Namespace) -> Any:
    """The pipeline of a local folder or hub id: text-to-image, or image-to-image for `upscale`. From safetensors only,
    on a GPU if there is one, with the scheduler and LoRA that are asked for.

    Raises:
        ValueError: a model or LoRA that is not there, cannot be fetched, is damaged or of another kind, or a scheduler
            that the pipeline does not accept.
    """
    import diffusers
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    default = torch.float16 if device == "cuda" else torch.float32
    kind = default if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    options = {dtype_argument(): kind, "variant": arguments.variant, "use_safetensors": True}
    kinds = {"generate": diffusers.AutoPipelineForText2Image, "upscale": diffusers.AutoPipelineForImage2Image}
    check_folder(arguments.model)
    with explained("--model", arguments.model):
        pipe = kinds[arguments.command].from_pretrained(arguments.model, **options)
    if arguments.lora is not None:
        with explained("--lora", arguments.lora):
            pipe.load_lora_weights(arguments.lora, use_safetensors=True)
    if arguments.scheduler is not None:
        pipe.scheduler = find_scheduler(pipe, arguments.scheduler).from_config(pipe.scheduler.config)
    return pipe.to(device)


def check_folder(model: str) -> None:
    """ValueError for a folder or file that is no pipeline of diffusers."""
    path = Path(model)
    if path.is_file():
        raise ValueError(
            f"--model {model} is a file: give the folder of a pipeline, which diffusers makes of a checkpoint with "
            "StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)"
        )
    if path.is_dir() and not (path / "model_index.json").is_file():
        raise ValueError(
            f"--model {model} holds no pipeline of diffusers: it has no model_index.json. Give the folder that has one"
        )


@contextmanager
def explained(option: str, place: str) -> Iterator[None]:
    """One sentence for whatever the libraries raise inside, while they load what ``option`` names."""
    if not Path(place).exists() and not HUB_ID.fullmatch(place):
        raise ValueError(
            f"{option} {place} is not there: give a path that exists, or the id of a repository on the hub"
        )
    try:
        yield
    except Exception as error:
        reason = str(error).strip().removesuffix(".")
        if Path(place).exists():
            raise ValueError(
                f"{option} {place} is damaged, incomplete or of another kind ({reason}): copy or download it again"
            ) from error
        raise ValueError(
            f"{option} {place} is not here, and the hub did not give it ({reason}): correct the name, or look at the "
            "connection"
        ) from error


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
