"""The prompts of a run. A smaller limit selects a prefix, so it never changes an image."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.prompts.checks import ID, is_text
from experiments.scenes.renderer.scene import Scene, sample_scenes

KINDS = {".json": "coco", ".tsv": "table"}  # files that are not one prompt per line


@dataclass(frozen=True)
class Prompt:
    """One prompt. ``scene`` is the scene that it describes, for prompts of the embedded world."""

    id: str
    text: str
    scene: Scene | None = None


def load_prompts(source: dict[str, Any]) -> list[Prompt]:
    """Load the prompts of a run.

    Args:
        source: the `prompts` node of the configuration: ``source`` ("scenes", "manifest" or "file"), ``limit``, and
            ``seed`` of scenes or ``path`` of a file: one prompt per line, or one of `KINDS` by its suffix.

    Raises:
        FileNotFoundError: no file at ``path``.
        ValueError: the file is damaged or has too few prompts, or the limit is missing or below 1.
    """
    limit = source.get("limit")
    if limit is not None and limit < 1:
        raise ValueError(f"prompts.limit must be at least 1, not {limit}")
    if source["source"] == "scenes":
        if limit is None:
            raise ValueError("prompts.limit must be a number for prompts=scenes, whose captions never end")
        scenes = sample_scenes(int(limit), source["seed"])
        return [Prompt(f"{i:06d}", scene.caption, scene) for i, scene in enumerate(scenes)]
    if source.get("path") is None:
        raise ValueError("prompts.path is missing: a manifest, or a text file with one prompt per line")
    path = Path(source["path"])
    if source["source"] == "manifest":
        return read_manifest(path, limit)
    if path.suffix.lower() in KINDS:
        return read_captions(path, limit)
    return read_lines(path, limit)


def read_lines(path: Path, limit: int | None) -> list[Prompt]:
    """The first ``limit`` prompts of a text file with one prompt per line, ignoring empty lines."""
    try:
        lines = [line.strip() for line in file_bytes(path).decode("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): save it as such") from error
    texts = [line for line in lines if line][:limit]
    if not texts:
        raise ValueError(f"{path} contains no prompts: write one per line")
    return [Prompt(f"{i:06d}", text) for i, text in enumerate(texts)]


def read_captions(path: Path, limit: int | None) -> list[Prompt]:
    """The first ``limit`` prompts of COCO's captions or a table; ValueError for a damaged file or too few."""
    from experiments.prompts.captions import sampled_captions

    file_bytes(path)  # says that there is no file
    found = [Prompt(name, text) for name, text in sampled_captions(path)[:limit]]
    if len(found) < (limit or 1):
        raise ValueError(f"{path} contains {len(found)} prompts: lower prompts.limit")
    return found


def read_manifest(path: Path, limit: int | None) -> list[Prompt]:
    """The first ``limit`` prompts of a manifest; ValueError for a damaged line, a repeated id or too few lines."""
    prompts: dict[str, Prompt] = {}
    for number, line in enumerate(manifest_bytes(path).splitlines()[:limit], start=1):
        prompt = parse_prompt(line)
        if prompt is None:
            raise ValueError(f"line {number} of {path} has no valid id (128 letters, digits, - and _) or no prompt")
        if prompt.id in prompts:
            raise ValueError(f"line {number} of {path} repeats the id {prompt.id}")
        prompts[prompt.id] = prompt
    if len(prompts) < (limit or 1):
        raise ValueError(f"{path} contains {len(prompts)} prompts: lower prompts.limit or build a larger manifest")
    return list(prompts.values())


def parse_prompt(line: bytes) -> Prompt | None:
    """Parse a line of a manifest; None if it is damaged."""
    try:
        row = json.loads(line)
        valid = bool(ID.fullmatch(row["id"])) and is_text(row["prompt"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return Prompt(row["id"], row["prompt"]) if valid else None


def manifest_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(
            f"no prompt manifest at {path} (prompts.path): build one with"
            f" python -m experiments.prompts build SOURCE --out {path}"
        )
    return path.read_bytes()


def file_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"no prompts file at {path}: set prompts.path to a text file with one prompt per line")
    return path.read_bytes()


def prompts_identity(source: dict[str, Any]) -> dict[str, Any]:
    """Everything that determines the prompts of a `prompts` node, except their number."""
    if source["source"] == "scenes":
        return {"source": "scenes", "seed": source["seed"]}
    if source["source"] == "manifest":
        return {"source": "manifest", "sha256": manifest_identity(Path(source["path"]))}
    path = Path(source["path"])
    kind = KINDS.get(path.suffix.lower())
    found = {"source": "file", "sha256": hashlib.sha256(file_bytes(path)).hexdigest()}
    return found | ({"kind": kind} if kind else {})


def manifest_identity(path: Path) -> str:
    """The identity in the manifest's provenance, or the hash of the file if there is no provenance.

    The identity covers what the manifest was sampled from and how, but not its length: a longer manifest from the
    same sources continues a run. ValueError if the provenance describes another file.
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
        raise ValueError(f"{provenance_path} does not describe {path}, which has changed: build the manifest again")
    return identity


def prompt_seed(run_seed: int, prompt_id: str) -> int:
    """Seed of a prompt's image, 0 to 2^63 - 1: the first 63 bits of the SHA-256 of "SEED:ID"."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}:{prompt_id}".encode()).digest()[:8], "big") >> 1
