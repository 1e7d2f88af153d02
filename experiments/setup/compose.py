"""From a command line to a configuration: Hydra's composition, with errors of one line."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.setup import schema

VERSION_BASE = "1.3"


def compose_config(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """The configuration for a command line of one run.

    Args:
        overrides: as Hydra takes them, without sweeps.
        with_hydra: keep Hydra's own node, where an experiment's grid is.

    Raises:
        ValueError: one line that names the key or group and what exists.
    """
    try:
        if GlobalHydra.instance().is_initialized():  # inside a job
            return compose("config", list(overrides), return_hydra_config=with_hydra)
        return deepcopy(_composed(str(schema.CONF), tuple(overrides), with_hydra))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain(error)) from error


@lru_cache(maxsize=256)
def _composed(conf: str, overrides: tuple[str, ...], with_hydra: bool) -> DictConfig:
    """Not to be changed. A grid needs its rows several times, and Hydra takes over 0.1 s for each."""
    with initialize_config_dir(conf, version_base=VERSION_BASE):
        return compose("config", list(overrides), return_hydra_config=with_hydra)


def explain(error: Exception) -> str:
    """Hydra's and OmegaConf's messages on one line, with the cause that names the key, without their types."""
    parts = [str(error).split("Config search path")[0]]
    if isinstance(error.__cause__, OmegaConfBaseException) and str(error.__cause__) not in parts[0]:
        parts.append(str(error.__cause__))
    lines = [line for part in parts for line in part.splitlines()]
    kept = [line for line in lines if not line.strip().startswith(("object_type=", "reference_type="))]
    return " ".join(" ".join(kept).split())


def plain_values(config: DictConfig) -> dict[str, Any]:
    """The configuration with interpolations resolved; ValueError that names the key if a value is missing."""
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ValueError(explain(error)) from error
