"""Loading pipelines from the hub, a folder or a single file: safetensors only, and one line for whatever is missing,
damaged, or not the model that the configuration names.
"""

from __future__ import annotations

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
from experiments.setup.processes import own_device
from experiments.setup.weights import RESTORE, HubFolder, locate_vae, locate_weights, weights_digest
from scalecrafter.pipeline import dtype_argument, training_size

SINGLE_FILE = "{} is a single file: give model.config, folder or hub id of a pipeline of its architecture"
DTYPES = ("float32", "float16", "bfloat16")
PIPELINES = {
    "StableDiffusionPipeline": StableDiffusionPipeline,
    "StableDiffusionXLPipeline": StableDiffusionXLPipeline,
}


@dataclass(frozen=True)
class ModelSource:
    """What to load, and what it has to be (conf/model).

    Args:
        name: of the model, part of a run's folder name.
        path: local folder of a pipeline, or a single-file checkpoint; replaces ``id``.
        id: repository on the hub, with ``revision`` (a commit) and ``variant`` of its weight files ("fp16").
        config: for a single file, folder or hub id of a pipeline of the same architecture.
        dtype: "auto", "float32", "float16" or "bfloat16".
        scheduler: "ddim", or None for the pipeline's own.
        vae: folder or hub id of another autoencoder.
        prediction: required prediction type, "epsilon" or "v_prediction"; None accepts either.
        side: required training size in pixels; None accepts any.
        tiled_above: images with a longer side are decoded in tiles; None: never.
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

    def __post_init__(self) -> None:
        if self.scheduler not in (None, "ddim"):
            raise ValueError(f"model.scheduler is ddim or null (the pipeline's own), not {self.scheduler!r}")
        if self.dtype not in ("auto", *DTYPES):
            raise ValueError(f"model.dtype must be auto, {', '.join(DTYPES)}, not {self.dtype!r}")

    def locate(self) -> Path:
        """Folder or file of the weights; see `locate_weights`."""
        return locate_weights(self.path, self.id, self.revision, self.variant)

    def remote_config(self) -> HubFolder | None:
        """The architecture of a single-file checkpoint on the hub, if it comes from there."""
        if self.config:
            return HubFolder(self.config, "model.config=DIR", weights=False)
        return HubFolder(self.id, "model.config=DIR", self.revision, weights=False) if self.id else None

    def digest(self) -> str:
        """SHA-256 over the weight files, without loading them."""
        return weights_digest(self.locate(), locate_vae(self.vae) if self.vae else None, self.variant)


def resolve_dtype(name: str) -> str:
    """A name in `DTYPES`; "auto" is float16 on a GPU, bfloat16 on a CPU with AMX or AVX512_BF16, else float32."""
    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "float16"
    instructions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return "bfloat16" if any(getattr(torch.cpu, name, lambda: False)() for name in instructions) else "float32"


@cache
def load_pipeline(source: ModelSource) -> Any:
    """The pipeline with its weights, on this process's GPU if there is one.

    Raises:
        FileNotFoundError: nothing there, and nothing that can be fetched.
        ValueError: a file is missing or damaged, is a pickle, or holds another model than ``source`` names.
    """
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    place, dtype = source.locate(), resolve_dtype(source.dtype)
    pipe = load_file(source, place, dtype) if place.is_file() else load_folder(source, place, dtype)
    if source.vae:
        pipe.vae = load_vae(locate_vae(source.vae), dtype)
    check_model(source, place, pipe)
    if source.scheduler:
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.to(own_device())
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    return pipe


def pipeline_class(folder: Path) -> Any:
    """The class named in a folder's model_index.json; ValueError if the benchmark cannot sample with it."""
    try:
        name = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"the model at {folder} is incomplete or damaged: its model_index.json names no class"
        ) from error
    return pipeline_named(name, folder)


def pipeline_named(name: Any, folder: Path) -> Any:
    """The supported class called ``name``; a list there means remote code, and is refused."""
    if not isinstance(name, str) or name not in PIPELINES:
        raise ValueError(f"{folder} holds a {name}: text-to-image needs a {' or '.join(PIPELINES)}")
    return PIPELINES[name]


def loading_options(kind: Any, dtype: str) -> dict[str, Any]:
    """Options shared by both loaders. The safety checker would black out images that are to be scored."""
    checker = {"safety_checker": None, "feature_extractor": None} if kind is StableDiffusionPipeline else {}
    return {dtype_argument(): getattr(torch, dtype), "local_files_only": True, **checker}


def load_folder(source: ModelSource, folder: Path, dtype: str) -> Any:
    kind = pipeline_class(folder)
    variant = source.variant if any(folder.glob(f"unet/*.{source.variant}.safetensors")) else None
    try:
        return kind.from_pretrained(folder, use_safetensors=True, variant=variant, **loading_options(kind, dtype))
    except Exception as error:  # whatever the libraries raise, the cause is a file in this folder
        remedy = RESTORE if folder == WEIGHTS else "copy it again"
        reason = " ".join(str(error).split())
        raise ValueError(f"the model at {folder} is incomplete or damaged ({reason}): {remedy}") from error


def load_file(source: ModelSource, file: Path, dtype: str) -> Any:
    if source.config and Path(source.config).is_dir():
        folder = Path(source.config)
    elif remote := source.remote_config():
        folder = remote.fetch()
    else:
        raise ValueError(SINGLE_FILE.format(file))
    kind = pipeline_class(folder)
    try:
        return kind.from_single_file(str(file), config=str(folder), **loading_options(kind, dtype))
    except Exception as error:  # whatever the libraries raise, the cause is this file or the given architecture
        reason = " ".join(str(error).split())
        raise ValueError(f"the checkpoint {file} does not fit the architecture of {folder} ({reason})") from error


def load_vae(folder: Path, dtype: str) -> Any:
    try:
        return AutoencoderKL.from_pretrained(folder, use_safetensors=True, **{dtype_argument(): getattr(torch, dtype)})
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the autoencoder at {folder} is incomplete or damaged ({reason}): copy it again") from error


def check_model(source: ModelSource, place: Path, pipe: Any) -> None:
    """ValueError if a pipeline is not the model that ``source`` names."""
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
