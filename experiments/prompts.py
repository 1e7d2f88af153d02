"""Prompts with stable ids: a smaller limit is a prefix, so it never changes a picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.scenes.render import Scene, sample_scenes

IDENTIFYING = 256  # scenes that stand for all in a hash: enough to notice that they are sampled differently


@dataclass(frozen=True)
class PromptSource:
    """Where prompts come from: captions of random scenes (``seed``), or a file with one a line (``path``)."""

    source: str
    limit: int | None = None
    seed: int = 0
    path: str | None = None


@dataclass(frozen=True)
class Prompt:
    """One prompt; ``scene`` is what it describes in the embedded world."""

    id: str
    text: str
    scene: Scene | None = None


def load_prompts(source: PromptSource) -> list[Prompt]:
    """The prompts of a source, at most ``limit``.

    Raises:
        ValueError: no such source, no limit where one is needed, or no prompt.
        FileNotFoundError: no file of prompts.
    """
    if source.limit is not None and source.limit < 1:
        raise ValueError(f"prompts.limit must be at least 1, not {source.limit}")
    if source.source == "scenes":
        if source.limit is None:
            raise ValueError("scenes have no end: set prompts.limit")
        scenes = sample_scenes(source.limit, source.seed)
        return [Prompt(f"{i:06d}", scene.caption, scene) for i, scene in enumerate(scenes)]
    return [Prompt(f"{i:06d}", text) for i, text in enumerate(file_lines(source)[: source.limit])]


def file_lines(source: PromptSource) -> list[str]:
    """All prompts of a file, stripped, without empty lines."""
    if source.source != "file" or source.path is None:
        raise ValueError(f"prompts.source must be scenes or file with prompts.path, not {source.source!r}")
    path = Path(source.path)
    if not path.is_file():
        raise FileNotFoundError(f"no file of prompts at {path}: set prompts.path")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    if not any(lines):
        raise ValueError(f"{path} holds no prompt: write one a line")
    return [line for line in lines if line]


def prompts_identity(source: PromptSource) -> dict[str, Any]:
    """What decides the prompts, without the limit."""
    if source.source == "scenes":
        captions = [scene.caption for scene in sample_scenes(IDENTIFYING, source.seed)]
        return {"source": "scenes", "seed": source.seed, "sha256": texts_digest(captions)}
    return {"source": "file", "sha256": texts_digest(file_lines(source))}


def texts_digest(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def prompt_seed(run_seed: int, prompt_id: str) -> int:
    """Seed of a prompt's picture, 0 to 2^63 - 1, from sha256."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}:{prompt_id}".encode()).digest()[:8], "big") >> 1
