"""Build a manifest of prompts (JSONL, in order of rank) from metadata, with its provenance beside it (NAME.json)."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.files import sha256_of_file, write_atomically
from experiments.prompts.filters import Denylist, Filters, read_denylist
from experiments.prompts.metadata import Source, find_sources, open_source, source_facts
from experiments.prompts.sample import smallest_ranks
from experiments.prompts.usable import check_columns, usable_rows

RULES_VERSION = 1  # of cleaning, comparing and ranking captions: to be raised when any of them changes


@dataclass(frozen=True)
class ManifestSpec:
    """What a manifest is sampled from, and how."""

    sources: tuple[Path, ...]
    count: int
    seed: int = 0
    filters: Filters = Filters()
    denylist: Path | None = None
    caption_column: str | None = None


def build_manifest(spec: ManifestSpec, out: Path, progress: bool = False) -> dict[str, Any]:
    """Write a manifest and its provenance.

    Args:
        spec: what to sample.
        out: manifest to write, ending in ``.jsonl``; the provenance goes to the same name ending in ``.json``.
        progress: show a progress bar.

    Returns:
        The provenance.

    Raises:
        FileNotFoundError: a source or the denylist does not exist.
        ValueError: a source cannot be used, or too few prompts are left. Nothing is written then.
    """
    if out.suffix != ".jsonl":
        raise ValueError(f"{out} must end in .jsonl: its provenance is written to {out.stem}.json beside it")
    if spec.count < 1:
        raise ValueError(f"count must be at least 1, not {spec.count}")
    denied = read_denylist(spec.denylist) if spec.denylist else Denylist()
    sources = [open_source(path, spec.caption_column) for path in find_sources(spec.sources)]
    for source in sources:
        check_columns(source, spec.filters, denied)
    tally: Counter[str] = Counter()
    usable = usable_rows(sources, spec.filters, denied, tally, progress)
    # Each denied id removes at most one prompt from the sample, so this many spare ones are enough.
    sampled = smallest_ranks(usable, spec.count + len(denied.ids), spec.seed).to_pylist()
    rows = [manifest_row(row) for row in sampled]
    allowed = [i for i, row in enumerate(rows) if row["id"] not in denied.ids]
    tally["denied id"] = len(rows) - len(allowed)
    check_count(len(allowed), spec.count, tally)
    chosen = allowed[: spec.count]
    manifest = "".join(json.dumps(rows[i]) + "\n" for i in chosen).encode()
    provenance = {
        "sha256": hashlib.sha256(manifest).hexdigest(),
        "count": spec.count,
        "duplicates": sum(sampled[i]["copies"] - 1 for i in chosen),  # other rows with a caption of the manifest
        "read": tally.pop("read"),
        "dropped": {reason: number for reason, number in sorted(tally.items()) if number},
        **origin(spec, sources),
    }
    write_atomically(out, manifest)
    write_atomically(out.with_suffix(".json"), json.dumps(provenance, indent=2) + "\n")
    return provenance


def manifest_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the manifest; unknown values are left out."""
    size = {side: int(row[side]) for side in ("width", "height") if row[side] is not None and math.isfinite(row[side])}
    known = {name: row[name] for name in ("url", "image", "member") if row[name] is not None}
    return {"id": prompt_id(row["prompt"]), "prompt": row["prompt"], **size, **known}


def prompt_id(prompt: str) -> str:
    """The first 16 hexadecimal digits of the prompt's SHA-256."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def check_count(found: int, wanted: int, tally: Counter[str]) -> None:
    """Raise ValueError, listing the dropped rows by reason, if there are too few prompts."""
    if found < wanted:
        reasons = [f"{reason} {number}" for reason, number in sorted(tally.items()) if number and reason != "read"]
        raise ValueError(
            f"only {found} different prompts are left of {tally['read']} rows, {wanted} were requested: lower --count"
            f" or relax the filters (dropped: {', '.join(reasons) or 'none, the other rows are duplicates'})"
        )


def origin(spec: ManifestSpec, sources: Sequence[Source]) -> dict[str, Any]:
    """Everything that determines the prompts except their number, and its hash ``identity``.

    The identity covers the contents of the sources, and neither their paths nor their order.
    """
    facts = [source_facts(source) for source in sources]
    denylist = sha256_of_file(spec.denylist) if spec.denylist else None
    decisive = {
        "law": RULES_VERSION,  # a historical name, kept because it is part of every identity
        "seed": spec.seed,
        "caption_column": spec.caption_column,
        "filters": spec.filters.active(),
        "denylist_sha256": denylist,
    }
    contents = sorted(str(fact["sha256"]) for fact in facts)
    identity = hashlib.sha256(json.dumps(decisive | {"sources": contents}, sort_keys=True).encode()).hexdigest()
    return {"identity": identity, **decisive, "sources": facts}
