"""The prompts of a run: a smaller limit is a prefix, so it never changes a picture."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.scenes.render import Scene, sample_scenes

FILE_NAME = re.compile(r"[A-Za-z0-9_-]+")  # an id names a picture


@dataclass(frozen=True)
class Prompt:
    """One prompt; ``scene`` is what it describes in the embedded world."""

    id: str
    text: str
    scene: Scene | None = None


def load_prompts(source: dict[str, Any]) -> list[Prompt]:
    """The prompts of a `prompts` node of the configuration; ValueError if there is none."""
    limit = source.get("limit")
    if limit is not None and limit < 1:
        raise ValueError(f"prompts.limit must be at least 1, not {limit}")
    if source["source"] == "scenes":
        scenes = sample_scenes(int(source["limit"]), source["seed"])
        return [Prompt(f"{i:06d}", scene.caption, scene) for i, scene in enumerate(scenes)]
    if source["source"] == "manifest":
        return read_manifest(Path(source["path"]), limit)
    lines = [line.strip() for line in Path(source["path"]).read_text(encoding="utf-8").splitlines()]
    texts = [line for line in lines if line][:limit]
    if not texts:
        raise ValueError(f"{source['path']} holds no prompt: write one a line")
    return [Prompt(f"{i:06d}", text) for i, text in enumerate(texts)]


def read_manifest(path: Path, limit: int | None) -> list[Prompt]:
    """The first ``limit`` prompts of a manifest; ValueError for a broken line, a repeated id, or too few lines."""
    prompts: dict[str, Prompt] = {}
    for number, line in enumerate(manifest_bytes(path).splitlines()[:limit], start=1):
        prompt = parse_prompt(line)
        if prompt is None:
            raise ValueError(f"line {number} of {path} has no id (letters, digits, - and _) or no prompt")
        if prompt.id in prompts:
            raise ValueError(f"line {number} of {path} repeats the id {prompt.id}")
        prompts[prompt.id] = prompt
    if len(prompts) < (limit or 1):
        raise ValueError(f"{path} holds {len(prompts)} prompts: set prompts.limit to no more, or build a larger one")
    return list(prompts.values())


def parse_prompt(line: bytes) -> Prompt | None:
    """The prompt of a line of a manifest, None if it is broken."""
    try:
        row = json.loads(line)
        whole = bool(FILE_NAME.fullmatch(row["id"])) and isinstance(row["prompt"], str)
    except (ValueError, TypeError, KeyError):
        return None
    return Prompt(row["id"], row["prompt"]) if whole else None


def manifest_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(
            f"no prompt manifest at {path}: make one with python -m experiments.prompts build SOURCE --out {path}"
        )
    return path.read_bytes()


def prompts_identity(source: dict[str, Any]) -> dict[str, Any]:
    """What decides the prompts, without the limit."""
    if source["source"] == "scenes":
        return {"source": "scenes", "seed": source["seed"]}
    if source["source"] == "manifest":
        return {"source": "manifest", "sha256": manifest_identity(Path(source["path"]))}
    return {"source": "file", "sha256": hashlib.sha256(Path(source["path"]).read_bytes()).hexdigest()}


def manifest_identity(path: Path) -> str:
    """What the manifest was drawn from and how, but not how many: a longer one from the same draw continues a run.
    Without provenance beside it, the hash of the file. ValueError if the provenance is of another file.
    """
    digest = hashlib.sha256(manifest_bytes(path)).hexdigest()
    provenance_path = path.with_suffix(".json")
    if not provenance_path.exists():
        return digest
    try:
        provenance = json.loads(provenance_path.read_text(encoding="utf-8"))
        recorded, identity = provenance["sha256"], str(provenance["identity"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{provenance_path} is not the provenance of {path}: build the manifest again") from error
    if recorded != digest:
        raise ValueError(f"{path} is not the file that {provenance_path} describes: build the manifest again")
    return identity


def prompt_seed(run_seed: int, prompt_id: str) -> int:
    """Seed of a prompt's picture, 0 to 2^63 - 1, from sha256."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}:{prompt_id}".encode()).digest()[:8], "big") >> 1
