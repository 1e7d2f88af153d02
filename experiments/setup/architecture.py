"""Pipelines without weights: every module of its true size, but its tensors have a shape and no content. They say what
a model would cost, and which runs are its own, on a machine that has no weights.

The shape comes from the model's own folder if that is at hand, else from the file of its name here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
import yaml
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from experiments.scenes import WEIGHTS
from experiments.setup.models import LoadedModel, ModelSource, check_model, pipeline_named, resolve_dtype

SHIPPED = Path(__file__).parent / "architectures"
FILES = {
    "unet": "config.json",
    "vae": "config.json",
    "scheduler": "scheduler_config.json",
    "text_encoder": "config.json",
    "text_encoder_2": "config.json",
}
TEXT_ENCODERS = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}

fake = FakeTensorMode(allow_non_fake_inputs=True)


def read_architecture(source: ModelSource) -> dict[str, Any]:
    """The class of a pipeline and the configuration of each of its parts.

    Raises:
        FileNotFoundError: neither the model's folder nor a file of its name is there.
        ValueError: a folder whose configuration is incomplete.
    """
    for place in (source.path, source.config) if source.path or source.id else (WEIGHTS,):
        if place is not None and (Path(place) / "model_index.json").is_file():
            return read_folder(Path(place))
    shipped = SHIPPED / f"{source.name}.yaml"
    if not shipped.is_file():
        names = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml")))
        raise FileNotFoundError(
            f"no pipeline folder at {source.path}, and the shape of {source.name} is not known ({names} are)"
        )
    return yaml.safe_load(shipped.read_text(encoding="utf-8"))


def read_folder(folder: Path) -> dict[str, Any]:
    """From the configuration files of a pipeline's folder."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        found = {"pipeline": index["_class_name"], "scheduler_class": index["scheduler"][1]}
        for part, name in FILES.items():
            path = folder / part / name
            if path.is_file() or part != "text_encoder_2":
                found[part] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"the configuration of the model at {folder} is incomplete or damaged ({error})") from error
    return found


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Tensors are made in this precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@cache
def load_architecture(source: ModelSource) -> LoadedModel:
    """The pipeline of a model without its weights; its digest is empty. In place of float16, with which they share
    every size, tensors are bfloat16: the library's check for overflow would look at their values.
    """
    parts, place = read_architecture(source), Path(source.path or source.name)
    kind = pipeline_named(parts["pipeline"], place)
    dtype = resolve_dtype(source.dtype)
    precision = torch.float32 if dtype == "float32" else torch.bfloat16
    # SDXL's pipeline, and no other, decodes in float32 then.
    overflows = dtype == "float16" and "text_encoder_2" in parts and parts["vae"].get("force_upcast", True)
    with fake, default_dtype(precision):
        modules: dict[str, Any] = {"unet": UNet2DConditionModel.from_config(parts["unet"])}
        for part, encoder in TEXT_ENCODERS.items():
            if part in parts:
                modules[part] = encoder(CLIPTextConfig(**{**parts[part], "dtype": precision}))
        with default_dtype(torch.float32 if overflows else precision):
            modules["vae"] = AutoencoderKL.from_config(parts["vae"])
    for module in modules.values():
        module.eval().requires_grad_(False)
    tokenizers: dict[str, Any] = {"tokenizer": None} | ({"tokenizer_2": None} if "text_encoder_2" in parts else {})
    if "text_encoder_2" not in parts:
        tokenizers |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    own = getattr(diffusers, parts.get("scheduler_class", "DDIMScheduler"))
    scheduler = (DDIMScheduler if source.scheduler else own).from_config(parts["scheduler"])
    pipe = kind(scheduler=scheduler, **modules, **tokenizers)
    check_model(source, place, pipe)
    return LoadedModel(source, pipe, dtype, "")
