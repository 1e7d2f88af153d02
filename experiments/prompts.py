"""Prompts with stable ids: a smaller limit is a prefix, so it never changes a picture."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.scenes.render import Scene, sample_scenes


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
    lines = [line.strip() for line in Path(source["path"]).read_text(encoding="utf-8").splitlines()]
    texts = [line for line in lines if line][:limit]
    if not texts:
        raise ValueError(f"{source['path']} holds no prompt: write one a line")
    return [Prompt(f"{i:06d}", text) for i, text in enumerate(texts)]


def prompts_identity(source: dict[str, Any]) -> dict[str, Any]:
    """What decides the prompts, without the limit."""
    if source["source"] == "scenes":
        return {"source": "scenes", "seed": source["seed"]}
    return {"source": "file", "sha256": hashlib.sha256(Path(source["path"]).read_bytes()).hexdigest()}


def prompt_seed(run_seed: int, prompt_id: str) -> int:
    """Seed of a prompt's picture, 0 to 2^63 - 1, from sha256."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}:{prompt_id}".encode()).digest()[:8], "big") >> 1
