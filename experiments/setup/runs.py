"""From a configuration to a run: plain values, checked before anything is sampled. No weights are loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from baselines.direct import Direct
from baselines.method import Method, Sampler
from experiments.prompts import Prompt, load_prompts
from experiments.setup.architecture import Model, open_model
from experiments.setup.compose import plain_values
from experiments.setup.identity import identity_digest, run_identity
from experiments.setup.models import ModelSource
from experiments.setup.processes import Shard, shard_of_process
from scalecrafter.freeu import FreeU
from scalecrafter.pipeline import training_size

PAPER_LIMIT, SHORT_LIMIT = "paper", "1k"


@dataclass(frozen=True)
class ReferenceSpec:
    """Where reference images come from; see conf/metrics and `experiments.scoring.references`."""

    source: str
    count: int = 0
    seed: int = 0
    minimum_side: int | None = None
    minimum_count: int = 2


@dataclass(frozen=True)
class MetricsSpec:
    """What to score with; ``extractor`` None generates only. The rest as in `experiments.setup.schema`."""

    extractor: str | None
    weights: str | None
    resize: str
    reference: ReferenceSpec
    crops: str | None
    also: Sequence[str]
    repetition: str | None


@dataclass(frozen=True)
class Workload:
    """What samples, and how large: a model, a method, a size and a sampler. Enough to estimate the cost.

    ``base_sampler`` is the model's own sampling, of the base samples that every run of the model is compared with.
    """

    model: Model
    method_name: str
    method: Method
    resolution: str
    height: int
    width: int
    sampler: Sampler
    base_sampler: Sampler
    batch_size: int


@dataclass(frozen=True)
class Run(Workload):
    """A workload with its prompts, how it is scored, and where it lives.

    ``verify``: hash every image that exists again, instead of those that have changed since they were hashed.
    """

    prompts: Sequence[Prompt]
    prompts_config: dict[str, Any]
    seed: int
    metrics: MetricsSpec
    runs: Path
    logger: dict[str, Any]
    experiment: str | None
    shard: Shard | None
    locks: bool
    verify: bool
    identity: dict[str, Any]

    @property
    def apart(self) -> bool:
        """Whether this is a shard that fills a folder of its own."""
        return self.shard is not None and not self.locks

    @property
    def digest(self) -> str:
        return identity_digest(self.identity)

    @property
    def stem(self) -> str:
        """Name of the run folder without its digest."""
        return f"{self.model.name}-{self.method_name}-{self.height}x{self.width}"

    @property
    def folder(self) -> Path:
        return self.runs / f"{self.stem}-{self.digest[:8]}"

    @property
    def scores_file(self) -> Path:
        """The scores of these prompts: a run may be scored with several numbers of them, in several ways."""
        return self.folder / "scores" / f"{len(self.prompts)}-{identity_digest(asdict(self.metrics))[:8]}.json"


def build_run(config: DictConfig, open_: Callable[[ModelSource], Model] = open_model) -> Run:
    """Resolve everything; raises ValueError or FileNotFoundError before anything is sampled if something does not fit.

    Args:
        open_: `open_model`, or `open_architecture` where the weights are not needed.
    """
    values = plain_values(config)
    workload = build_workload(config, values, open_)
    limit = resolve_limit(values["prompts"]["limit"], workload.height, workload.width)
    prompts = load_prompts(values["prompts"] | {"limit": limit})
    if values["batch_size"] == "auto":
        workload = replace(workload, batch_size=min(workload.batch_size, len(prompts)))
    return Run(
        **vars(workload),
        prompts=prompts,
        prompts_config=values["prompts"],
        seed=values["seed"],
        metrics=read_metrics(dict(values["metrics"])),
        runs=Path(values["paths"]["runs"]),
        logger=values["logger"],
        experiment=values["experiment"]["name"],
        shard=shard_of_process(values["shard"]),
        locks=values["locks"],
        verify=values["verify"],
        identity=run_identity(workload, values["prompts"], values["seed"]),
    )


def base_run(run: Run) -> Run:
    """The samples at training size that a run is compared with, for the same prompts and seed: one run per model."""
    workload = base_workload(run)
    workload = replace(workload, batch_size=min(workload.batch_size, len(run.prompts)))
    return replace(run, **vars(workload), identity=run_identity(workload, run.prompts_config, run.seed))


def base_workload(workload: Workload) -> Workload:
    """Direct inference at the training size with the model's own sampling."""
    height, width = training_size(workload.model.shape)
    return Workload(
        model=workload.model,
        method_name="direct",
        method=Direct(),
        resolution="x1",
        height=height,
        width=width,
        sampler=workload.base_sampler,
        base_sampler=workload.base_sampler,
        batch_size=automatic_batch(height, width),
    )


def build_workload(
    config: DictConfig, values: dict[str, Any], open_: Callable[[ModelSource], Model] = open_model
) -> Workload:
    """What samples; ``values`` is the configuration as `plain_values` gives it."""
    model = open_(model_source(values["model"]))
    method = build_method(config)
    height, width = target_size(values["resolution"], model.shape)
    batch = values["batch_size"]
    return Workload(
        model=model,
        method_name=values["method"]["name"],
        method=method,
        resolution=values["resolution"]["name"],
        height=height,
        width=width,
        sampler=read_sampler(values["sampler"]),
        base_sampler=Sampler(values["model"]["steps"], values["model"]["guidance_scale"]),
        batch_size=automatic_batch(height, width) if batch == "auto" else whole(batch, "batch_size"),
    )


def read_sampler(values: dict[str, Any]) -> Sampler:
    """The ``sampler`` node of the configuration."""
    try:
        freeu = None if values["freeu"] is None else FreeU(**values["freeu"])
    except TypeError:
        raise ValueError(f"sampler.freeu has b1, b2, s1, s2 and form, not {values['freeu']!r}") from None
    return Sampler(**values | {"freeu": freeu})


def read_metrics(values: dict[str, Any]) -> MetricsSpec:
    """The ``metrics`` node of the configuration."""
    reference = ReferenceSpec(
        values.pop("reference"),
        values.pop("reference_count"),
        values.pop("reference_seed"),
        values.pop("minimum_side"),
        values.pop("reference_minimum"),
    )
    return MetricsSpec(reference=reference, **values)


def model_source(values: dict[str, Any]) -> ModelSource:
    """The ``model`` node of the configuration, without what it holds for methods and samplers."""
    return ModelSource(**{field.name: values[field.name] for field in fields(ModelSource)})


def build_method(config: DictConfig) -> Method:
    """The method with its options; ValueError with one line for an option that it refuses."""
    try:
        method: Method = instantiate(config.method.object, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise ValueError(f"method {config.method.name}: {' '.join(str(cause).split())}") from error
    return method


def target_size(resolution: dict[str, Any], pipe: Any) -> tuple[int, int]:
    """(height, width) in pixels of the ``resolution`` node for this model."""
    height, width = training_size(pipe)
    return (
        whole(height * resolution["scale_height"], "resolution.scale_height"),
        whole(width * resolution["scale_width"], "resolution.scale_width"),
    )


def resolve_limit(limit: int | str | None, height: int, width: int) -> int | None:
    """How many prompts; "paper" is the paper's number, 30,000 up to 1024x1024 and 10,000 above, "1k" is 1,000."""
    if limit == PAPER_LIMIT:
        return 30_000 if height * width <= 1024**2 else 10_000
    if limit == SHORT_LIMIT:
        return 1_000
    if isinstance(limit, str):
        raise ValueError(f"prompts.limit is a number, null, {PAPER_LIMIT} or {SHORT_LIMIT}, not {limit!r}")
    return limit


def whole(value: Any, key: str) -> int:
    if not isinstance(value, (int, float)) or value != int(value) or value < 1:
        raise ValueError(f"{key} gives {value}, which is not a whole number of at least 1")
    return int(value)


def automatic_batch(height: int, width: int) -> int:
    """As many images as have the pixels of eight of 128x128, at least one."""
    return max(1, 8 * 128 * 128 // (height * width))
