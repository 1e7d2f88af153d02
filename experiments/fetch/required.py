"""Which weight files runs need, and getting them all before the first run starts.

What is missing is reported together, with the command that fetches it. Runs that need none of it go on.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from baselines.lpips import vgg_weights
from baselines.syncdiffusion import SyncDiffusion
from baselines.upscale import UpscaleSD
from eval.download import RemoteFile
from eval.extractors import VITS, published_inception
from experiments.setup.compose import plain_values
from experiments.setup.runs import MetricsSpec, build_method, model_source, read_metrics
from experiments.setup.weights import HubFolder

Weights = RemoteFile | HubFolder
log = logging.getLogger(__name__)


def required_weights(config: DictConfig) -> list[Weights]:
    """The weight files of one run that have a known source, present or not.

    Args:
        config: of the run. Local files that it names are left to the run, which says what is wrong with them.

    Raises:
        ValueError: the run cannot be built.
    """
    values = plain_values(config)
    source, metrics = model_source(values["model"]), read_metrics(dict(values["metrics"]))
    found: list[Weights | None] = []
    if source.path is None and source.id:
        found.append(HubFolder(source.id, "model.path=DIR", source.revision, source.variant))
    elif source.path is not None and Path(source.path).is_file():
        found.append(None if source.config and Path(source.config).is_dir() else source.remote_config())
    if source.vae:
        found.append(unless_local(source.vae, "model.vae=DIR"))
    found.append(extractor_weights(metrics))
    method = build_method(config)
    if isinstance(method, SyncDiffusion) and method.distance is None:
        url, path = vgg_weights()
        found.append(RemoteFile(url, path, re.split(r"[-.]", path.name)[-2]))
    if isinstance(method, UpscaleSD):
        found.append(unless_local(method.model, "upscale_sd.model=DIR"))
    return [each for each in found if each is not None]


def extractor_weights(metrics: MetricsSpec) -> Weights | None:
    """Of the feature extractor; None if it needs none, or a local path is given."""
    if metrics.extractor == "inception" and metrics.weights is None:
        return published_inception()
    if metrics.extractor in VITS:
        return unless_local(metrics.weights or VITS[metrics.extractor], "metrics.weights=DIR")
    return None


def unless_local(name: str, option: str) -> HubFolder | None:
    """A repository on the hub; None for a local folder."""
    return None if Path(name).is_dir() else HubFolder(name, option)


def weights_of(configs: Sequence[DictConfig]) -> list[list[Weights]]:
    """Of each run; none of one that cannot be built, whose job will say why."""
    found: list[list[Weights]] = []
    for config in configs:
        try:
            found.append(required_weights(config))
        except (ValueError, OSError):
            found.append([])
    return found


def fetch_missing(configs: Sequence[DictConfig], overrides: Sequence[str]) -> None:
    """Fetch what these runs lack, before any of them starts.

    Args:
        overrides: of the command line, to be named in the command that fetches.

    Raises:
        FileNotFoundError: none of the runs can start, as something that it needs cannot be fetched. If some can, the
            same is logged as a warning.
    """
    needed = weights_of(configs)
    failures: dict[Weights, str] = {}
    for weights in {each: None for each in sum(needed, []) if not each.is_here()}:
        log.info("fetching %s", weights.name)
        try:
            weights.fetch()
        except (ValueError, OSError) as error:
            failures[weights] = str(error)
    if not failures:
        return
    command = shlex.join(["python", "-m", "experiments.fetch", *overrides])
    names = ", ".join(weights.name for weights in failures)
    blocked = sum(any(each in failures for each in weights) for weights in needed)
    message = (
        f"{blocked} of {len(needed)} runs lack weights that cannot be fetched: {names}. On a machine with network "
        f"access run `{command}`, and copy the files to here: {caches()}"
    )
    if blocked == len(needed):
        raise FileNotFoundError(message)
    log.warning("%s. The other runs go on.", message)


def caches() -> str:
    """Where weight files are kept."""
    from huggingface_hub import constants

    return f"{constants.HF_HUB_CACHE} (HF_HOME) and {torch.hub.get_dir()}/checkpoints (TORCH_HOME)"
