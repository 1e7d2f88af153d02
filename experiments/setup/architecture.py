"""Models known without their weights: every module at its true size, with tensors that have a shape and no content,
and the digest of the weight files. Enough for the identity of a run, and to estimate what it costs.

The architecture comes from the model's own folder if that is at hand, else from the file of its name in
architectures/.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
import yaml
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from experiments.setup.models import (
    SINGLE_FILE,
    ModelSource,
    check_model,
    load_pipeline,
    pipeline_named,
    resolve_dtype,
)
from scalecrafter.decode import TILE, tiled_decoding
from scalecrafter.pipeline import vae_scale_factor

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


@dataclass(frozen=True)
class Model:
    """A model as far as it is known without its weights.

    Args:
        source: what to load.
        shape: its pipeline without weights.
        dtype: precision that it is loaded in.
        digest: SHA-256 over its weight files; empty if they are not at hand.
    """

    source: ModelSource
    shape: Any
    dtype: str
    digest: str

    @property
    def name(self) -> str:
        return self.source.name

    def load(self) -> Any:
        """The pipeline with its weights, loaded once per process."""
        return load_pipeline(self.source)

    def tiles(self, height: int, width: int) -> bool:
        """Whether images of this size in pixels are decoded in more than one tile."""
        longest, one_tile = max(height, width), TILE * vae_scale_factor(self.shape)
        return self.source.tiled_above is not None and longest > max(self.source.tiled_above, one_tile)

    def decoding(self, height: int, width: int) -> AbstractContextManager[None]:
        """In which the loaded pipeline decodes images of this size in pixels: in tiles, or at once."""
        return tiled_decoding(self.load().vae) if self.tiles(height, width) else nullcontext()


def open_model(source: ModelSource) -> Model:
    """The model with the digest of its weights; FileNotFoundError or ValueError if they are missing or refused."""
    digest = source.digest()  # first: it says what is missing
    return Model(source, load_architecture(source), resolve_dtype(source.dtype), digest)


def open_architecture(source: ModelSource) -> Model:
    """The model where no weights are needed; its digest is empty."""
    return Model(source, load_architecture(source), resolve_dtype(source.dtype), "")


def read_architecture(source: ModelSource) -> dict[str, Any]:
    """The class of a pipeline and the configuration of each of its parts.

    Raises:
        FileNotFoundError: neither the model's folder nor a file of its name is there.
        ValueError: the folder's configuration is incomplete, or no folder is named.
    """
    for place in (source.path, source.config):
        if place is not None and (Path(place) / "model_index.json").is_file():
            return read_folder(Path(place))
    shipped = SHIPPED / f"{source.name}.yaml"
    if not shipped.is_file():
        if source.path is None and source.id is None:
            source.locate()  # says what is missing
        if Path(source.path or "").is_file():
            raise ValueError(SINGLE_FILE.format(source.path))
        names = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml")))
        raise FileNotFoundError(
            f"no pipeline folder at {source.path or source.id}: give model.path, the folder that save_pretrained "
            f"wrote; only {names} are known without one"
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
    """Create tensors in this precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@cache
def load_architecture(source: ModelSource) -> Any:
    """The pipeline without weights. Instead of float16 its tensors are bfloat16, which has the same size: the
    library's check for overflow would read their values.
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
    return pipe
