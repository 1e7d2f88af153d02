"""From Hydra's configuration to plain values: the only place that sees OmegaConf.

The identity of a run is everything that changes its pixels, and nothing else; its digest names the run folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from baselines.method import Method, Sampler
from experiments.prompts import Prompt, load_prompts, prompts_identity
from experiments.sampling.shards import Share
from experiments.scoring.feature_spaces import ReferenceSource
from experiments.setup.models import LoadedModel, ModelSource, load_model
from scalecrafter.pipeline import training_size

PAPER_LIMIT = "paper"
CONF = Path(__file__).resolve().parents[2] / "conf"


@dataclass(frozen=True)
class Metrics:
    """What to score with; ``extractor`` None draws only. The rest as in conf/metrics/_base.yaml."""

    extractor: str | None
    weights: str | None
    resize: str
    reference: ReferenceSource
    crops: str | None
    also: Sequence[str]
    repetition: str | None


def read_metrics(values: dict[str, Any]) -> Metrics:
    """The `metrics` node of the configuration."""
    reference = ReferenceSource(
        values.pop("reference"),
        values.pop("reference_count"),
        values.pop("reference_seed"),
        values.pop("minimum_side"),
    )
    return Metrics(reference=reference, **values)


@dataclass(frozen=True)
class Drawing:
    """What draws, and how large: a model, a method, a size and a sampler. Enough to say what it costs."""

    model: LoadedModel
    method_name: str
    method: Method
    resolution: str
    height: int
    width: int
    sampler: Sampler
    batch_size: int


@dataclass(frozen=True)
class Cell(Drawing):
    """One cell of a table: what draws, and prompts, all plain values."""

    prompts: Sequence[Prompt]
    seed: int
    metrics: Metrics
    runs: Path
    logger: dict[str, Any]
    experiment: str | None
    share: Share | None
    identity: dict[str, Any]

    @property
    def digest(self) -> str:
        return identity_digest(self.identity)

    @property
    def folder(self) -> Path:
        return self.runs / f"{self.model.name}-{self.method_name}-{self.height}x{self.width}-{self.digest[:8]}"

    @property
    def scores_file(self) -> Path:
        """Where the scores of these prompts are: a run may be scored with several numbers of them, in several ways."""
        return self.folder / "scores" / f"{len(self.prompts)}-{identity_digest(asdict(self.metrics))[:8]}.json"


def identity_digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """The configuration for a command line; ValueError with one line for what does not exist."""
    try:
        there = GlobalHydra.instance().is_initialized()  # in a job of a sweep
        with nullcontext() if there else initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(" ".join(str(error).split("Config search path")[0].split())) from error


def build_cell(config: DictConfig, load: Callable[[ModelSource], LoadedModel] = load_model) -> Cell:
    """Load the model and resolve everything; fails before the first denoising step if something does not fit."""
    values = plain_values(config)
    drawing = read_drawing(config, values, load)
    model, sampler, height, width = drawing.model, drawing.sampler, drawing.height, drawing.width
    identity = {
        "model": {"name": model.name, "sha256": model.digest, "dtype": model.dtype},
        "scheduler": type(model.pipe.scheduler).__name__,
        **({"tiled_decoding": True} if model.tiles(height, width) else {}),
        "method": {"name": drawing.method_name, **drawing.method.describe(model.pipe, height, width)},
        "size": [height, width],
        "sampler": {"steps": sampler.steps, "guidance_scale": sampler.guidance_scale, "eta": sampler.eta},
        "seed": values["seed"],
        "prompts": prompts_identity(values["prompts"]),
    }
    return Cell(
        **vars(drawing),
        prompts=load_prompts(values["prompts"] | {"limit": prompt_count(values["prompts"]["limit"], height, width)}),
        seed=values["seed"],
        metrics=read_metrics(dict(values["metrics"])),
        runs=Path(values["paths"]["runs"]),
        logger=values["logger"],
        experiment=values["experiment"]["name"] if "experiment" in values else None,
        share=None if values["share"] is None else Share.parse(values["share"]),
        identity=identity,
    )


def read_drawing(
    config: DictConfig, values: dict[str, Any], load: Callable[[ModelSource], LoadedModel] = load_model
) -> Drawing:
    """What draws; ``values`` is the configuration as `plain_values` gives it."""
    model = load(model_source(values["model"]))
    method = build_method(config)
    height, width = target_size(values["resolution"], model.pipe)
    batch = values["batch_size"]
    return Drawing(
        model=model,
        method_name=values["method"]["name"],
        method=method,
        resolution=values["resolution"]["name"],
        height=height,
        width=width,
        sampler=Sampler(**values["sampler"]),
        batch_size=automatic_batch(height, width) if batch == "auto" else int(batch),
    )


def plain_values(config: DictConfig) -> dict[str, Any]:
    """The configuration, resolved; ValueError with one line for what is missing."""
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ValueError(" ".join(str(error).split())) from error


def asks_for_plan(config: DictConfig) -> bool:
    """Whether nothing is to be drawn; ValueError for what is neither true nor false."""
    if not isinstance(config.plan, bool):
        raise ValueError(f"plan is true or false, not {config.plan!r}")
    return config.plan


def target_size(resolution: dict[str, Any], pipe: Any) -> tuple[int, int]:
    """(height, width) in pixels of the `resolution` node for this model."""
    height, width = training_size(pipe)
    return whole(height * resolution["scale_height"], "scale_height"), whole(
        width * resolution["scale_width"], "scale_width"
    )


def model_source(values: dict[str, Any]) -> ModelSource:
    """The `model` node of the configuration, without what it holds for methods and samplers."""
    return ModelSource(**{field.name: values[field.name] for field in fields(ModelSource) if field.name in values})


def build_method(config: DictConfig) -> Method:
    """The method with its options; ValueError with one line for an option that it refuses."""
    try:
        method: Method = instantiate(config.method.object, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise ValueError(f"method {config.method.name}: {' '.join(str(cause).split())}") from error
    return method


def prompt_count(limit: int | str | None, height: int, width: int) -> int | None:
    """How many prompts; "paper" means the paper's count, 30,000 up to 1024x1024 and 10,000 above."""
    if limit != PAPER_LIMIT:
        if isinstance(limit, str):
            raise ValueError(f"prompts.limit is a number, null or {PAPER_LIMIT}, not {limit!r}")
        return limit
    return 30_000 if height * width <= 1024**2 else 10_000


def base_overrides(overrides: Sequence[str], count: int) -> list[str]:
    """The command line of the samples of training size that a cell's scores need, for its ``count`` prompts."""
    return [*overrides, "method=direct", "resolution=x1", f"prompts.limit={count}"]


def whole(side: float, key: str) -> int:
    if side != int(side) or side < 1:
        raise ValueError(f"resolution.{key} gives a side of {side} pixels: choose a factor that gives whole pixels")
    return int(side)


def automatic_batch(height: int, width: int) -> int:
    """As many pictures as have the pixels of eight of 128x128, at least one."""
    return max(1, 8 * 128 * 128 // (height * width))
