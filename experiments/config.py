"""From Hydra's configuration to plain values: the only place that sees OmegaConf.

The identity of a run is everything that changes its pixels, and nothing else; its digest names the run folder.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from baselines.direct import Direct
from experiments.models import LoadedModel, load_model
from experiments.prompts import Prompt, PromptSource, load_prompts, prompts_identity
from scalecrafter.method import Method, Sampler
from scalecrafter.settings import training_size

CONF = Path(__file__).resolve().parents[1] / "conf"
BATCH_PIXELS = 8 * 128 * 128
Values = TypeVar("Values")


@dataclass(frozen=True)
class ModelChoice:
    """A pipeline folder; ``path`` None is the project's own, ``dtype`` auto is found by the hardware."""

    name: str
    path: str | None
    dtype: str


@dataclass(frozen=True)
class Resolution:
    """Sides relative to the model's training size, or in pixels where ``height`` and ``width`` are given."""

    name: str
    scale_height: float
    scale_width: float
    height: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class Overrides:
    """What replaces parts of ScaleCrafter's settings; only here to check the types."""

    settings: str = "auto"
    tau: int | None = None
    progressive: bool | None = None
    dilation: dict[str, float] | None = None


@dataclass(frozen=True)
class Metrics:
    """What to score with; ``extractor`` None draws only. ``reference_*``: the rendered scenes to compare with."""

    extractor: str | None
    reference_count: int = 0
    reference_seed: int = 0


@dataclass(frozen=True)
class Cell:
    """One cell of a table: a model, a method, a size, prompts and a sampler. ``batch`` None: by the number of pixels."""

    model: LoadedModel
    method_name: str
    method: Method
    resolution: str
    height: int
    width: int
    sampler: Sampler
    prompts: Sequence[Prompt]
    seed: int
    batch: int | None
    metrics: Metrics
    runs: Path
    identity: dict[str, Any]

    @property
    def digest(self) -> str:
        return identity_digest(self.identity)

    @property
    def folder(self) -> Path:
        return run_folder(self.runs, self.identity)

    @property
    def batch_size(self) -> int:
        return self.batch or max(1, BATCH_PIXELS // (self.height * self.width))


def identity_digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def run_folder(runs: Path, identity: Mapping[str, Any]) -> Path:
    """``<model>-<method>-<H>x<W>-<digest8>`` under ``runs``."""
    height, width = identity["size"]
    name = f"{identity['model']['name']}-{identity['method']['name']}-{height}x{width}"
    return runs / f"{name}-{identity_digest(identity)[:8]}"


def base_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The run of the same model, prompts, sampler and seed with the stock pipeline at the training size."""
    return {**identity, "method": {"name": "direct"}, "size": identity["model"]["base_size"]}


def base_cell(cell: Cell) -> Cell:
    """The cell whose pictures ``fid_b`` and ``kid_b`` compare with."""
    identity = base_identity(cell.identity)
    height, width = identity["size"]
    changes: dict[str, Any] = {"method_name": "direct", "method": Direct(), "resolution": "x1"}
    return replace(cell, **changes, height=height, width=width, identity=identity)


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """The configuration for a command line; ValueError with one line for what does not exist."""
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(readable_error(error)) from error


def readable_error(error: Exception) -> str:
    """One line without what Hydra adds for its developers."""
    return " ".join(str(error).split("Config search path")[0].split("\n    full_key")[0].split())


def typed(kind: type[Values], config: DictConfig, key: str) -> Values:
    """The node ``key`` as a frozen dataclass; ValueError naming the value with the wrong type, or none."""
    schema = OmegaConf.structured(kind)
    OmegaConf.set_readonly(schema, False)
    try:
        values = OmegaConf.to_container(config[key], resolve=True, throw_on_missing=True)
        return OmegaConf.to_object(OmegaConf.merge(schema, values))  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        full_key = (error.full_key or "").removeprefix(f"{key}.")
        raise ValueError(f"{key}.{full_key}: {readable_error(error)}") from error


def build_cell(config: DictConfig) -> Cell:
    """Load the model and resolve everything; fails before the first denoising step if something does not fit."""
    choice, source = typed(ModelChoice, config, "model"), typed(PromptSource, config, "prompts")
    sampler, seed, batch = typed(Sampler, config, "sampler"), whole_number(config, "seed"), chosen_batch(config)
    resolution, metrics = typed(Resolution, config, "resolution"), typed(Metrics, config, "metrics")
    typed(Overrides, config, "scalecrafter")
    prompts = load_prompts(source)
    model = load_model(choice.name, choice.path, choice.dtype)
    check_sampler(sampler, model.pipe.scheduler.config.num_train_timesteps)
    method = build_method(config)
    base = training_size(model.pipe)
    height, width = target_size(resolution, base)
    identity = {
        "model": {"name": model.name, "sha256": model.digest, "dtype": model.dtype, "base_size": list(base)},
        "method": {"name": config.method.name, **method.describe(model.pipe, height, width)},
        "size": [height, width],
        "sampler": {"steps": sampler.steps, "guidance_scale": sampler.guidance_scale, "eta": sampler.eta},
        "seed": seed,
        "prompts": prompts_identity(source),
    }
    explicit = resolution.height is not None or resolution.width is not None
    return Cell(
        model=model,
        method_name=config.method.name,
        method=method,
        resolution=f"{height}x{width}" if explicit else resolution.name,
        height=height,
        width=width,
        sampler=sampler,
        prompts=prompts,
        seed=seed,
        batch=batch,
        metrics=metrics,
        runs=Path(config.paths.runs),
        identity=identity,
    )


def build_method(config: DictConfig) -> Method:
    try:
        return instantiate(config.method.object, _convert_="all")
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"method={config.method.name}: {readable_error(error)}") from error


def target_size(resolution: Resolution, base: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in pixels; ValueError for a fraction of a pixel."""
    sides = []
    for name, trained in zip(("height", "width"), base, strict=True):
        scale, given = getattr(resolution, f"scale_{name}"), getattr(resolution, name)
        side = trained * scale if given is None else given
        if side != int(side) or side < 1:
            raise ValueError(f"resolution: a {name} of {side} pixels is impossible, choose a whole number above 0")
        sides.append(int(side))
    return sides[0], sides[1]


def check_sampler(sampler: Sampler, train_timesteps: int) -> None:
    """ValueError for values with which no scheduler can sample."""
    if not 1 <= sampler.steps <= train_timesteps:
        raise ValueError(f"sampler.steps must be from 1 to {train_timesteps}, not {sampler.steps}")
    if not 0 <= sampler.eta <= 1:
        raise ValueError(f"sampler.eta must be from 0 to 1, not {sampler.eta}")
    if not math.isfinite(sampler.guidance_scale):
        raise ValueError(f"sampler.guidance_scale must be a finite number, not {sampler.guidance_scale}")


def whole_number(config: DictConfig, key: str) -> int:
    if not isinstance(config[key], int) or isinstance(config[key], bool):
        raise ValueError(f"{key} must be a whole number, not {config[key]!r}")
    return config[key]


def chosen_batch(config: DictConfig) -> int | None:
    if config.batch_size == "auto":
        return None
    if not isinstance(config.batch_size, int) or config.batch_size < 1:
        raise ValueError(f"batch_size must be auto or a whole number above 0, not {config.batch_size!r}")
    return config.batch_size


def table_cells(overrides: Sequence[str]) -> tuple[str, list[Cell], Path]:
    """Name, cells and results folder of an experiment's table (table1 unless ``experiment=`` says otherwise)."""
    if not any(override.startswith(("experiment=", "+experiment=")) for override in overrides):
        overrides = ["experiment=table1", *overrides]
    config = compose_config(overrides)
    if config.table is None:
        raise ValueError("this experiment describes no table: experiment=table1 does")
    grid = [(r, m) for r in config.table.resolutions for m in config.table.methods]
    cells = [build_cell(compose_config([*overrides, f"resolution={r}", f"method={m}"])) for r, m in grid]
    return config.table.name, cells, Path(config.paths.results)
