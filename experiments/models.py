"""Pipelines from folders: safetensors only, one line for what is missing or damaged, a digest of what was loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import StableDiffusionPipeline

from experiments.scenes import WEIGHTS


@dataclass(frozen=True)
class LoadedModel:
    """A pipeline ready to draw; ``digest`` is the sha256 over the contents of its files."""

    name: str
    pipe: Any
    dtype: str
    digest: str


def folder_digest(folder: Path) -> str:
    """sha256 over the relative names and contents of the files that a pipeline loads."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*/*")) + [folder / "model_index.json"]:
        if path.suffix in {".json", ".safetensors", ".txt"}:
            total.update(path.relative_to(folder).as_posix().encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def automatic_dtype() -> str:
    """float16 on a GPU; bfloat16 on a CPU with AMX, where it is several times faster; else float32."""
    if torch.cuda.is_available():
        return "float16"
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return "bfloat16" if has_amx else "float32"


@cache
def load_model(name: str, path: str | None, dtype: str) -> LoadedModel:
    """Load the pipeline folder ``path`` (None: the weights of the project) in ``dtype``, on a GPU if there is one.

    Raises:
        FileNotFoundError: no pipeline folder there.
        ValueError: a file in it is missing or damaged, or the dtype is unknown.
    """
    folder = WEIGHTS if path is None else Path(path)
    remedy = "restore it with `git checkout -- experiments/scenes/weights`" if path is None else "copy it again"
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"no pipeline folder at {folder} (no model_index.json): {remedy}")
    chosen = automatic_dtype() if dtype == "auto" else dtype
    if chosen not in ("float32", "float16", "bfloat16"):
        raise ValueError(f"model.dtype must be auto, float32, float16 or bfloat16, not {dtype!r}")
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        pipe = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except Exception as error:  # whatever the libraries raise, the cause is a file in this folder
        raise ValueError(f"the model at {folder} is incomplete or damaged ({error}): {remedy}") from error
    pipe.to("cuda" if torch.cuda.is_available() else "cpu", getattr(torch, chosen))
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    return LoadedModel(name, pipe, chosen, folder_digest(folder))
