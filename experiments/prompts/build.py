"""From sources to a manifest of prompts (JSONL, in order of rank) with its provenance beside it (NAME.json)."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.prompts.denylist import Denylist, read_denylist
from experiments.prompts.filters import Filters
from experiments.prompts.sample import smallest_ranks
from experiments.prompts.sources import Source, find_sources, open_source, source_facts
from experiments.prompts.usable import check_columns, usable_rows
from experiments.sampling.manifest import write_atomically

LAW = 1  # number of the rules by which captions are cleaned, compared and ranked: a change of any of them raises it


@dataclass(frozen=True)
class Draw:
    """What to draw, and from what."""

    sources: tuple[Path, ...]
    count: int
    seed: int = 0
    filters: Filters = Filters()
    denylist: Path | None = None
    caption_column: str | None = None


def build_manifest(draw: Draw, out: Path, progress: bool = False) -> dict[str, Any]:
    """Write the manifest and its provenance, which is returned. Whatever fails does so before anything is written."""
    if out.suffix != ".jsonl":
        raise ValueError(f"{out} must end in .jsonl: its provenance goes beside it, into {out.stem}.json")
    if draw.count < 1:
        raise ValueError(f"count must be at least 1, not {draw.count}")
    denied = read_denylist(draw.denylist) if draw.denylist else Denylist()
    sources = [open_source(path, draw.caption_column) for path in find_sources(draw.sources)]
    for source in sources:
        check_columns(source, draw.filters, denied)
    tally: Counter[str] = Counter()
    usable = usable_rows(sources, draw.filters, denied, tally, progress)
    # A denied id takes away at most one of the sample, so with as many to spare the count is reached all the same.
    drawn = smallest_ranks(usable, draw.count + len(denied.ids), draw.seed).to_pylist()
    rows = [manifest_row(row) for row in drawn]
    allowed = [i for i, row in enumerate(rows) if row["id"] not in denied.ids]
    tally["denied id"] = len(rows) - len(allowed)
    check_count(len(allowed), draw.count, tally)
    chosen = allowed[: draw.count]
    manifest = "".join(json.dumps(rows[i]) + "\n" for i in chosen).encode()
    provenance = {
        "sha256": hashlib.sha256(manifest).hexdigest(),
        "count": draw.count,
        "duplicates": sum(drawn[i]["copies"] - 1 for i in chosen),  # further rows with a caption of the manifest
        "read": tally.pop("read"),
        "dropped": {reason: number for reason, number in sorted(tally.items()) if number},
        **origin(draw, sources),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, manifest)
    write_atomically(out.with_suffix(".json"), (json.dumps(provenance, indent=2) + "\n").encode())
    return provenance


def manifest_row(row: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says of a row; what is unknown is left out."""
    size = {side: int(row[side]) for side in ("width", "height") if row[side] is not None and math.isfinite(row[side])}
    known = {name: row[name] for name in ("url", "image", "member") if row[name] is not None}
    return {"id": prompt_id(row["prompt"]), "prompt": row["prompt"], **size, **known}


def prompt_id(prompt: str) -> str:
    """The first 16 of the 64 hexadecimal digits of the prompt's SHA-256."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def check_count(found: int, wanted: int, tally: Counter[str]) -> None:
    """ValueError, with what was dropped and why, if there are too few."""
    if found < wanted:
        reasons = [f"{reason} {number}" for reason, number in sorted(tally.items()) if number and reason != "read"]
        raise ValueError(
            f"{found} different prompts are left of {tally['read']} rows, {wanted} were asked for: lower --count"
            f" or loosen what drops rows ({', '.join(reasons) or 'nothing dropped, the others are duplicates'})"
        )


def origin(draw: Draw, sources: Sequence[Source]) -> dict[str, Any]:
    """All that decides the prompts but their number, and its ``identity``, in which neither paths nor order count."""
    facts = [source_facts(source) for source in sources]
    denylist = hashlib.sha256(draw.denylist.read_bytes()).hexdigest() if draw.denylist else None
    decisive = {
        "law": LAW,
        "seed": draw.seed,
        "caption_column": draw.caption_column,
        "filters": draw.filters.active(),
        "denylist_sha256": denylist,
    }
    contents = sorted(str(fact["sha256"]) for fact in facts)
    identity = hashlib.sha256(json.dumps(decisive | {"sources": contents}, sort_keys=True).encode()).hexdigest()
    return {"identity": identity, **decisive, "sources": facts}
