"""From a command line to a configuration: Hydra's composition, with errors of one line.

A command line may come from somebody else, as a sweep does. What it names becomes part of files' names, and is checked
for that; and it instantiates classes of this project alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from experiments.setup import schema

VERSION_BASE = "1.3"
NAMED = ("model", "method", "resolution", "experiment")  # nodes whose name becomes part of files' names
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
NUMBER = re.compile(r"[+-]?[\d.]+")
CLASS = re.compile(r"(.+)\.([A-Z]\w*)")
OURS = ("baselines.", "experiments.scenes.")  # what ``_target_`` may name: methods, and what they are given
HYDRAS = ("hydra._internal.core_plugins.", "hydra_plugins.")  # in Hydra's own node: launchers, sweepers
LOGGING = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter")


@contextmanager
def explained() -> Iterator[None]:
    """Errors of Hydra and OmegaConf as ValueErrors of one line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain(error)) from error
    except RecursionError as error:
        raise ValueError("the overrides are nested too deeply") from error
    except OverflowError as error:
        raise ValueError(f"a number of the overrides is too large: {error}") from error


@explained()
def compose_config(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """The configuration for a command line of one run.

    Args:
        overrides: as Hydra takes them, without sweeps.
        with_hydra: keep Hydra's own node, where an experiment's grid is; its ``overrides`` may lack values.

    Raises:
        ValueError: one line that names the key or group and what exists.
    """
    lines = [named(line) for line in overrides]
    if GlobalHydra.instance().is_initialized():  # inside a job
        config = compose("config", lines, return_hydra_config=with_hydra)
    else:
        config = _composed(str(schema.CONF), tuple(lines), with_hydra)
    if with_hydra:
        check_hydra(config.hydra)
    return config


def named(override: str) -> str:
    """The override of a group with a number as a name: Hydra says which there are, and of a number only its type."""
    group, _, value = override.partition("=")
    return f"{group}='{value}'" if NUMBER.fullmatch(value) and (schema.CONF / group).is_dir() else override


def _composed(conf: str, overrides: tuple[str, ...], with_hydra: bool) -> DictConfig:
    """A grid needs its rows several times, and Hydra takes over 0.1 s for each: it composes what the groups say once
    for all rows that differ in values alone.
    """
    groups, values = _groups_and_values(overrides)
    if values:
        config = deepcopy(_chosen(conf, groups, with_hydra))
        try:
            for override in values:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
            return config
        except OmegaConfBaseException:
            pass  # Hydra's own message says more
    return deepcopy(_chosen(conf, overrides, with_hydra))


@lru_cache(maxsize=256)
def _chosen(conf: str, overrides: tuple[str, ...], with_hydra: bool) -> DictConfig:
    """As Hydra composes it; not to be changed."""
    if with_hydra:
        with initialize_config_dir(conf, version_base=VERSION_BASE):
            return compose("config", list(overrides), return_hydra_config=True)
    config = deepcopy(_chosen(conf, overrides, True))
    with open_dict(config):
        del config["hydra"]
    return config


@lru_cache(maxsize=1024)
def _parsed(override: str) -> Override:
    """Once for all lines that share it, as most of a grid do."""
    return OverridesParser.create().parse_overrides([override])[0]


def _groups_and_values(overrides: tuple[str, ...]) -> tuple[tuple[str, ...], list[Override]]:
    """The overrides that choose a group's option, and those that change a value, which Hydra applies after them. All
    are the former if one is neither, as those that add or delete, or act on Hydra itself.
    """
    groups, values = [], []
    for override in map(_parsed, overrides):
        key, first = override.key_or_group, override.key_or_group.split("/")[0].split(".")[0]
        is_group = (schema.CONF / key).is_dir()
        plain = override.type == OverrideType.CHANGE and override.package is None and not override.is_sweep_override()
        if not plain or first == "hydra" or (is_group and not isinstance(override.value(), str)):
            return overrides, []
        if is_group:
            groups.append(str(override.input_line))
        else:
            values.append(override)
    return tuple(groups), values


def explain(error: Exception) -> str:
    """Hydra's and OmegaConf's messages on one line, with the cause that names the key, without their types."""
    parts = [str(error).split("Config search path")[0]]
    if isinstance(error.__cause__, OmegaConfBaseException) and str(error.__cause__) not in parts[0]:
        parts.append(str(error.__cause__))
    lines = [line for part in parts for line in part.splitlines()]
    kept = [line for line in lines if not line.strip().startswith(("object_type=", "reference_type="))]
    return re.sub(r"^Lexer\w+: ", "not an override, as KEY=VALUE: ", " ".join(" ".join(kept).split()))


@explained()
def plain_values(config: DictConfig) -> dict[str, Any]:
    """The configuration with interpolations resolved; ValueError that names the key if a value is missing, is a name
    that no file can have, or a class that is not this project's.
    """
    values: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore
    for node in NAMED:
        check_name(node, values[node]["name"])
    for key, found in found_keys(values):
        if key.rpartition(".")[2] == "_target_" and not is_class_of(found, OURS):
            raise ValueError(f"{key} names a class in a module of baselines or experiments.scenes, not {found!r}")
    return values


def check_name(node: str, name: str | None) -> None:
    """ValueError for a name that leads to another folder, or that a spreadsheet takes for a formula."""
    if not NAME.fullmatch(str(name)) and (node, name) != ("experiment", None):
        raise ValueError(f"{node}.name is 1 to 100 letters, digits, -, _ and ., not {name!r}")


def check_hydra(node: DictConfig) -> None:
    """ValueError for a class in Hydra's own node that neither Hydra nor its plugins have, and for handlers of logs
    that are more than that.
    """
    for key, found in found_keys(OmegaConf.to_container(node)):
        last = key.rpartition(".")[2]
        if last == "_target_" and found is not None and not str(found).startswith(HYDRAS):
            raise ValueError(f"hydra.{key} names a class of Hydra or its plugins, not {found!r}")
        if "logging." in key and (last == "()" or last == "class" and found not in LOGGING):
            raise ValueError(f"hydra.{key} names a handler or formatter of Python's logging, not {found!r}")


def found_keys(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of nested mappings and lists as a path, and its value."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in pairs:
        yield f"{prefix}{key}", value
        yield from found_keys(value, f"{prefix}{key}.")


def is_class_of(target: Any, packages: tuple[str, ...]) -> bool:
    """Whether it is the name of a class in a module of these packages, and not of something that they import."""
    match = CLASS.fullmatch(target) if isinstance(target, str) else None
    if match is None or not match[1].startswith(packages):
        return False
    try:
        return find_spec(match[1]) is not None
    except (ImportError, ValueError):
        return False
