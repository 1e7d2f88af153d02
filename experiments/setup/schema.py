"""Structured configuration: the type and default of every key, so that a wrong type is an error that names the key.

The files in conf/ choose values; what they leave out stands here. See https://hydra.cc/docs/tutorials/structured_config.
Tables and lists that are null by default have type Any: OmegaConf cannot override a typed null with a mapping.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # noqa: UP035 (OmegaConf reads these)

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"


@dataclass
class ModelConfig:
    """What to load, and the model's usual sampling; see `experiments.setup.models.ModelSource`."""

    name: str = MISSING
    path: str | None = None  # folder of a pipeline or a single safetensors file, instead of id
    id: str | None = None  # repository on the hub
    revision: str | None = None
    variant: str | None = None  # of the weight files, as fp16
    config: str | None = None  # for a single file: folder or hub id of a pipeline of its architecture
    dtype: str = "auto"  # float16 on a GPU, bfloat16 on a CPU with AMX or AVX512_BF16, else float32
    scheduler: str | None = None  # ddim, or null: the pipeline's own
    vae: str | None = None  # folder or hub id of another autoencoder
    prediction: str | None = None  # epsilon or v_prediction: anything else is refused
    side: int | None = None  # pixels of the training size: anything else is refused
    tiled_above: int | None = 2048  # images with a longer side are decoded in tiles
    steps: int = 50
    guidance_scale: float = 7.5
    settings: Any = None  # area ratio -> settings that "auto" chooses from: a file or a shipped name; null: shipped
    distance: Any = None  # perceptual distance of SyncDiffusion; null: LPIPS with VGG features
    window_stride: int | None = None  # latent pixels; null: an eighth of the window, as in the papers
    sync_steps: int = 50
    sync_weight: float = 20.0


@dataclass
class MethodConfig:
    """A class of `baselines`, instantiated by Hydra."""

    name: str = MISSING
    eta: float = 0.0  # DDIM's, with sampler=paper or published
    published: Any = None  # name of a model, or any -> the sampler that its paper or code uses; for sampler=published
    object: dict[str, Any] = MISSING


@dataclass
class ResolutionConfig:
    """Sides relative to the model's training size."""

    name: str = MISSING
    scale_height: float = MISSING
    scale_width: float = MISSING
    images: int = MISSING  # how many prompts=scenes has, unless an experiment or prompts.limit says otherwise


@dataclass
class SamplerConfig:
    steps: int = MISSING
    guidance_scale: float = MISSING
    eta: float = 0.0
    scheduler: str | None = None  # ddim, euler, or null: the model's
    negative_prompt: str | None = None  # null: none
    freeu: Any = None  # b1, b2, s1, s2 and form, in all calls of the U-Net; null: as the method says, mostly none
    size_condition: str | None = None  # what SDXL is told: base, stage or target; null: as the method says


@dataclass
class PromptsConfig:
    source: str = MISSING  # scenes, file or manifest
    path: str | None = None
    seed: int = 1  # of random scenes
    limit: int | str | None = None  # a number; null for all; paper: 30000 up to 1024x1024, 10000 above; 1k: 1000


@dataclass
class MetricsConfig:
    """What to score with."""

    extractor: str | None = None  # null: do not score
    weights: str | None = None  # file of inception; folder or hub id of dinov2 and clip; null: the published ones
    resize: str = "clean"  # to the extractor's input: clean (antialiased) or legacy
    reference: str = "scenes"  # folder, run, tar shards, stored features (docs/evaluation.md), or scenes (rendered)
    reference_count: int = 512  # of rendered scenes
    reference_seed: int = 2
    reference_minimum: int = 100  # images that a reference needs at least, for whole images and for crops alike
    minimum_side: int | None = None  # leave out smaller real images; null: for crops the target's side, else 0
    crops: str | None = None  # of pfid_r and pkid_r: native, fidc1024, anyres or SIZE:COUNT
    also: list[str] = field(default_factory=list)  # precision_recall, fid_infinity, kid_subsets, ...
    repetition: str | None = None  # scenes: by the counter network; windows: by windows that resemble the base sample


@dataclass
class LoggerConfig:
    name: str = "none"
    project: str = "scalecrafter"


@dataclass
class ScaleCrafterConfig:
    """Fields of ScaleCrafter's settings, for sweeps; null leaves them as ``settings`` says."""

    settings: str = "auto"  # auto, a shipped name or a YAML file
    radius: float | None = None  # factor of every layer that the settings dilate
    tau: int | None = None
    progressive: bool | None = None
    dilation: Any = None
    noise_damped_tau: int | None = None
    noise_damped_dilation: Any = None
    dispersed: Any = None
    dispersed_tau: int | None = None
    dispersed_size: int | None = None
    dispersion_eta: float | None = None
    freeu: Any = None


@dataclass
class MultiDiffusionConfig:
    stride: float | None = None  # latent pixels; below 1: share of the window; null: an eighth
    circular: bool = False
    crop_coordinates: bool = False
    window_batch: int = 8


@dataclass
class SyncDiffusionConfig:
    weight: float = 20.0
    decay: float = 0.95
    sync_steps: int = 50
    anchor: str = "middle"
    recompute: bool | None = None  # less memory and more time; null: with windows above 768x768 pixels


@dataclass
class UpscaleSDConfig:
    model: str = "stabilityai/stable-diffusion-x4-upscaler"
    steps: int = 50
    guidance_scale: float = 9.0
    noise_level: int = 20


@dataclass
class PathsConfig:
    runs: str = "runs"
    results: str = "results"


@dataclass
class ExperimentConfig:
    """What an experiment is about; its grid is ``hydra.sweeper.params``."""

    name: str | None = None
    claim: str = ""  # what the paper says
    expected: Any = None  # resolution -> the variant that the claim says is best
    prompts: Any = None  # resolution -> number of prompts, for experiments that refer to it
    plot: Any = None  # x: title of the number that varies (none: categories); y: scores. Or frontier: scores, and
    # against: the experiment with which to compare each method's own
    skip: list[dict[str, Any]] = field(default_factory=list)  # combinations of the grid to leave out


@dataclass
class Config:
    """One run: a model samples prompts with a method at a resolution, and the images are scored."""

    model: ModelConfig = field(default_factory=ModelConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    resolution: ResolutionConfig = field(default_factory=ResolutionConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    scalecrafter: ScaleCrafterConfig = field(default_factory=ScaleCrafterConfig)
    multidiffusion: MultiDiffusionConfig = field(default_factory=MultiDiffusionConfig)
    syncdiffusion: SyncDiffusionConfig = field(default_factory=SyncDiffusionConfig)
    upscale_sd: UpscaleSDConfig = field(default_factory=UpscaleSDConfig)
    experiment: ExperimentConfig = field(default_factory=ExperimentConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    seed: int = 0  # together with a prompt's id it seeds the image
    batch_size: int | str = "auto"  # auto: by the number of pixels; changes the images by rounding alone
    shard: str | None = None  # I/N: every N-th prompt from the I-th on; other processes generate the others
    locks: bool = True  # false, for disks without flock: each shard fills a folder of its own, to be merged later
    verify: bool = False  # hash every image again, not only those whose size or times have changed


def register() -> None:
    """Make the schema known to Hydra, ``${project:PATH}`` a path in this checkout, and ``${published:KEY}`` an option
    of the sampler as the method's paper has it.
    """
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("project", lambda path: str(ROOT / path), replace=True)
    OmegaConf.register_new_resolver("published", published, replace=True)


def published(key: str, *, _root_: Any) -> Any:
    """``method.published`` under the model's name, or for any model; what it does not say is the model's own, and eta
    the method's.
    """
    recipes = _root_.method.published or {}
    for name in (_root_.model.name, "any"):
        recipe = recipes.get(name) or {}
        if key in recipe:
            return recipe[key]
    own = {"steps": _root_.model.steps, "guidance_scale": _root_.model.guidance_scale, "eta": _root_.method.eta}
    return own.get(key)


register()
