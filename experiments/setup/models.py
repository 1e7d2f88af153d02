"""Pipelines from the hub, a folder or a single file: safetensors only, a digest of what was loaded, and one line for
what is missing, damaged or another model than the configuration says.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

from experiments.scenes import WEIGHTS
from scalecrafter.decode import TILE
from scalecrafter.pipeline import folder_digest, pixels_per_cell, training_size

DTYPE = "dtype" if diffusers.__version__ >= "0.42" else "torch_dtype"  # the older one is named after torch
DTYPES = ("float32", "float16", "bfloat16")
PIPELINES = {
    "StableDiffusionPipeline": StableDiffusionPipeline,
    "StableDiffusionXLPipeline": StableDiffusionXLPipeline,
}
TEXTS = ("*.json", "*.txt")
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
OFFLINE_REMEDY = "restore it with `git checkout -- experiments/scenes/weights`"


@dataclass(frozen=True)
class ModelSource:
    """A model as the configuration names it (conf/model): what to load and what it has to be.

    Args:
        path: local folder of a pipeline, or a single-file checkpoint; replaces ``id``.
        id: of the hub, with ``revision`` (a commit) and ``variant`` of its weight files ("fp16").
        config: for a single file, folder or hub id of a pipeline of the same shape, for everything but weights.
        dtype: "auto", "float32", "float16" or "bfloat16".
        scheduler: "ddim", or None for the pipeline's own.
        vae: folder or hub id of another autoencoder.
        prediction: what the U-Net has to predict, "epsilon" or "v_prediction"; None: either.
        side: pixels of its training size; None: any.
        tiled_above: pictures with a longer side are decoded in overlapping tiles; None: never.
    """

    name: str
    path: str | None = None
    id: str | None = None
    revision: str | None = None
    variant: str | None = None
    config: str | None = None
    dtype: str = "auto"
    scheduler: str | None = None
    vae: str | None = None
    prediction: str | None = None
    side: int | None = None
    tiled_above: int | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A pipeline ready to draw; ``digest`` is the sha256 over the contents of its files."""

    source: ModelSource
    pipe: Any
    dtype: str
    digest: str

    @property
    def name(self) -> str:
        return self.source.name

    def tiles(self, height: int, width: int) -> bool:
        """Whether pictures of this size are decoded in tiles: of several, that is."""
        longest = max(height, width)
        one_tile = TILE * pixels_per_cell(self.pipe)
        return self.source.tiled_above is not None and longest > max(self.source.tiled_above, one_tile)


def automatic_dtype() -> str:
    """float16 on a GPU; bfloat16 on a CPU with instructions for it, where it is faster; else float32."""
    if torch.cuda.is_available():
        return "float16"
    instructions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return "bfloat16" if any(getattr(torch.cpu, name, lambda: False)() for name in instructions) else "float32"


def resolve_dtype(name: str) -> str:
    """A name of `DTYPES`, or this machine's choice for "auto"; ValueError for anything else."""
    if name not in ("auto", *DTYPES):
        raise ValueError(f"model.dtype must be auto, {', '.join(DTYPES)}, not {name!r}")
    return automatic_dtype() if name == "auto" else name


@cache
def load_model(source: ModelSource) -> LoadedModel:
    """The pipeline, on a GPU if there is one.

    Raises:
        FileNotFoundError: nothing there, or not to be fetched.
        ValueError: a file is missing or damaged, holds pickles, or is another model than ``source`` says.
    """
    if source.scheduler not in (None, "ddim"):
        raise ValueError(f"model.scheduler is ddim or null, the pipeline's own, not {source.scheduler!r}")
    dtype = resolve_dtype(source.dtype)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    place = locate(source)
    pipe = load_file(source, place, dtype) if place.is_file() else load_folder(source, place, dtype)
    digest = folder_digest(place) if place.is_dir() else hashlib.sha256(place.read_bytes()).hexdigest()
    if source.vae:
        pipe.vae, added = load_vae(source.vae, dtype)
        digest = hashlib.sha256(f"{digest} {added}".encode()).hexdigest()
    check_model(source, place, pipe)
    if source.scheduler:
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    return LoadedModel(source, pipe, dtype, digest)


def locate(source: ModelSource) -> Path:
    """Folder or file of the weights: ``path``, or ``id`` fetched once, or the project's own."""
    if source.path is None and source.id:
        return fetch(source.id, source.revision, source.variant, f"model.path=DIR ({source.name})")
    place = WEIGHTS if source.path is None else Path(source.path)
    if place.suffix in PICKLES:
        raise ValueError(f"{place} is a pickle, which can run anything when it is loaded: convert it to safetensors")
    if not place.is_file() and not (place / "model_index.json").is_file():
        remedy = OFFLINE_REMEDY if source.path is None else "give the folder that save_pretrained wrote"
        raise FileNotFoundError(f"no pipeline folder at {place} (no model_index.json): {remedy}")
    return place


def fetch(name: str, revision: str | None, variant: str | None, instead: str) -> Path:
    """Folder of a hub repository's configuration and safetensors, from the local cache or the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    weights = f"*.{variant}.safetensors" if variant else "*model.safetensors"
    wanted, unwanted = [*TEXTS, weights], ["safety_checker/*"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=unwanted))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        command = f"hf download {name}" + (f" --revision {revision}" if revision else "")
        files = " ".join(f"--include '{pattern}'" for pattern in wanted)
        raise FileNotFoundError(
            f"{name} is not in the local cache and cannot be fetched ({type(error).__name__}): where there is a "
            f"network run `{command} {files}`, copy the folder that it prints, and give it as {instead}"
        ) from error


def pipeline_class(folder: Path) -> Any:
    """The class that a pipeline folder names; ValueError if it is none that the benchmark draws with."""
    try:
        name = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"the model at {folder} is incomplete or damaged: its model_index.json has no class"
        ) from error
    return pipeline_named(name, folder)


def pipeline_named(name: Any, folder: Path) -> Any:
    """The class with the name that ``folder`` gives; a list there means remote code, and is refused."""
    if not isinstance(name, str) or name not in PIPELINES:
        raise ValueError(f"{folder} holds a {name}: text-to-image needs a {' or '.join(PIPELINES)}")
    return PIPELINES[name]


def options_of(kind: Any, dtype: str) -> dict[str, Any]:
    """What both ways of loading are told. The safety checker would black out pictures that are to be scored."""
    checker = {"safety_checker": None, "feature_extractor": None} if kind is StableDiffusionPipeline else {}
    return {DTYPE: getattr(torch, dtype), "local_files_only": True, **checker}


def load_folder(source: ModelSource, folder: Path, dtype: str) -> Any:
    kind = pipeline_class(folder)
    variant = source.variant if any(folder.glob(f"unet/*.{source.variant}.safetensors")) else None
    try:
        return kind.from_pretrained(folder, use_safetensors=True, variant=variant, **options_of(kind, dtype))
    except Exception as error:  # whatever the libraries raise, the cause is a file in this folder
        remedy = OFFLINE_REMEDY if folder == WEIGHTS else "copy it again"
        reason = " ".join(str(error).split())
        raise ValueError(f"the model at {folder} is incomplete or damaged ({reason}): {remedy}") from error


def load_file(source: ModelSource, file: Path, dtype: str) -> Any:
    if source.config and Path(source.config).is_dir():
        folder = Path(source.config)
    elif name := source.config or source.id:
        folder = fetch(name, None if source.config else source.revision, None, "model.config=DIR")
    else:
        raise ValueError(f"{file} is a single file: give model.config, folder or hub id of a pipeline of its shape")
    kind = pipeline_class(folder)
    try:
        return kind.from_single_file(str(file), config=str(folder), **options_of(kind, dtype))
    except Exception as error:  # whatever the libraries raise, the cause is this file or the shape it was said to have
        reason = " ".join(str(error).split())
        raise ValueError(f"the checkpoint {file} does not load into the shape of {folder} ({reason})") from error


def load_vae(name: str, dtype: str) -> tuple[Any, str]:
    """(autoencoder, digest)."""
    folder = Path(name) if Path(name).is_dir() else fetch(name, None, None, "model.vae=DIR")
    try:
        vae = AutoencoderKL.from_pretrained(folder, use_safetensors=True, **{DTYPE: getattr(torch, dtype)})
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the autoencoder at {folder} is incomplete or damaged ({reason}): copy it again") from error
    return vae, folder_digest(folder)


def check_model(source: ModelSource, place: Path, pipe: Any) -> None:
    """ValueError if it is another model than the configuration says."""
    predicts = pipe.scheduler.config.get("prediction_type", "epsilon")
    if source.prediction not in (None, predicts):
        raise ValueError(
            f"{place} predicts {predicts}, but {source.name} is a model of {source.prediction}: take another folder, "
            "or model=folder, which takes any"
        )
    if source.side is not None and training_size(pipe) != (source.side, source.side):
        height, width = training_size(pipe)
        raise ValueError(
            f"{place} was trained at {height}x{width}, but {source.name} is trained at {source.side}x{source.side}: "
            "take another folder, or model=folder, which takes any"
        )
