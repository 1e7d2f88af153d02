"""Scores on disk, with a hash by which a file that is torn or was changed is noticed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.files import write_atomically
from experiments.setup.identity import identity_digest

SEAL = "sha256"  # of the other scores, in their file


def sealed(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The scores with their hash."""
    return {**scores, SEAL: identity_digest(dict(scores))}


def is_changed(scores: Mapping[str, Any]) -> bool:
    """Whether scores are not those that their hash is of; older files have none."""
    return SEAL in scores and scores[SEAL] != identity_digest({key: scores[key] for key in scores if key != SEAL})


def store_scores(scores: Mapping[str, Any], path: Path) -> None:
    write_atomically(path, json.dumps(scores, indent=2) + "\n")


def stored_scores(path: Path) -> dict[str, Any] | None:
    """None if there are none, or the file is not as it was written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        intact = SEAL in found and not is_changed(found)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return found if intact else None
