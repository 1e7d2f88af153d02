"""The identity of a run: everything that changes its images, and nothing else. Its digest names the run folder.

Device, batch size, shards, number of prompts, paths, logger and launcher change no image and are not part of it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from baselines.sampler import Sampler, sampled_as
from experiments.prompts import prompts_identity
from experiments.setup.weights import weights_digest
from scalecrafter.pipeline import is_sdxl

FILE, ENVIRONMENT = "config.yaml", "environment.json"  # in a run folder
OWN_CONDITIONS = ("size_condition", "conditions")  # options of methods that sampler.size_condition replaces


def run_identity(workload: Any, prompts: dict[str, Any], seed: int) -> dict[str, Any]:
    """Plain values that decide the images of a run.

    Args:
        workload: `experiments.setup.runs.Workload`: model, method, size and sampler.
        prompts: the ``prompts`` node of the configuration.
        seed: of the run.
    """
    model, sampler, height, width = workload.model, workload.sampler, workload.height, workload.width
    with sampled_as(model.shape, sampler):
        described = workload.method.describe(model.shape, height, width)
        scheduler = type(model.shape.scheduler).__name__
    method = {key: weights_digest(value) if isinstance(value, Path) else value for key, value in described.items()}
    recipe = sampler_identity(sampler, model.shape)
    if "freeu" in recipe and method.get("freeu"):
        raise ValueError("FreeU is given twice, by sampler.freeu and by the method: set one of them to null")
    if "size_condition" in recipe:  # instead of the method's own
        method = {key: value for key, value in method.items() if key not in OWN_CONDITIONS}
    return {
        "model": {"name": model.name, "sha256": model.digest, "dtype": model.dtype},
        "scheduler": scheduler,
        **({"tiled_decoding": True} if model.tiles(height, width) else {}),
        "method": {"name": workload.method_name, **method},
        "size": [height, width],
        "sampler": recipe,
        "seed": seed,
        "prompts": prompts_identity(prompts),
    }


def sampler_identity(sampler: Sampler, pipe: Any) -> dict[str, Any]:
    """What of a sampler decides the images of this pipeline, the scheduler apart; what is not given is left out."""
    found: dict[str, Any] = {
        "steps": sampler.steps,
        "guidance_scale": sampler.guidance_scale,
        "eta": sampler.eta,
    }
    if sampler.negative_prompt is not None and sampler.guided:
        found["negative_prompt"] = sampler.negative_prompt
    if sampler.freeu is not None:
        found["freeu"] = asdict(sampler.freeu)
    if sampler.size_condition is not None and is_sdxl(pipe):
        found["size_condition"] = sampler.size_condition
    return found


@cache
def environment() -> Mapping[str, str]:
    """Device, and versions of what generates the images."""
    packages = ("torch", "diffusers", "transformers", "numpy")
    found = {name: importlib.metadata.version(name) for name in packages}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {"python": platform.python_version(), "device": device, **found}


def recorded_environment(folder: Path) -> dict[str, str] | None:
    """What a run folder records of it; None if that is missing or damaged."""
    try:
        found = json.loads((folder / ENVIRONMENT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def identity_digest(values: dict[str, Any]) -> str:
    """Hex SHA-256 of plain values, independent of the order of keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def identity_text(identity: dict[str, Any]) -> str:
    """As it stands in a run folder."""
    return yaml.safe_dump(identity, sort_keys=True)


def read_identity(folder: Path) -> dict[str, Any]:
    """The identity that a run folder records; ValueError if it records none."""
    path = folder / FILE
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not {"model", "method", "size"} <= found.keys():
            raise ValueError("no model, method or size")
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{folder} is not a run folder of this version ({error}): move it away") from error
    return found


def find_recorded(runs: Path, stem: str, identity: dict[str, Any]) -> dict[str, Any]:
    """The identity of the one run folder ``<stem>-*`` that differs from ``identity`` at most in what only the weights
    decide (their digest and precision), for machines that do not have them.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several, from other weights or in another precision.
    """
    found = []
    for path in sorted(runs.glob(f"{stem}-*/{FILE}")):
        recorded = read_identity(path.parent)
        if without_weights(recorded) == without_weights(identity):
            found.append((path.parent.name, recorded))
    if len(found) > 1:
        names = ", ".join(name for name, _ in found)
        raise ValueError(f"the same run with other weights or in another precision: {names}; move all but one")
    if not found:
        raise FileNotFoundError(f"no run {stem}-* in {runs}")
    return found[0][1]


def without_weights(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity as plain values, without what only the weights decide."""
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain | {"model": plain["model"]["name"]}
