"""A reference set's features with the protocol that made them, in one file: scored against without its pictures.

FID needs only mean and covariance, KID and precision and recall need the features: they are what is kept, float32.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

COMPARED = ("extractor", "extractor_sha256", "resizing", "cut")  # must be alike on both sides of a score


@dataclass(frozen=True)
class Reference:
    """Features (m, dim) float32 and how they were made: extractor,
    extractor_sha256, resizing, cut, source, n (pictures) and left_out (pictures that were too small).
    """

    features: np.ndarray
    protocol: dict[str, Any]


def save_reference(reference: Reference, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, features=reference.features, protocol=np.array(json.dumps(reference.protocol)))
    temporary.replace(path)


def load_reference(path: Path, expected: dict[str, Any]) -> Reference:
    """The reference in a file; ValueError if it was not made as ``expected`` (the keys of ``COMPARED``) or is none.

    Files of other programs (mu, sigma) are refused: they do not say how they were made.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            reference = Reference(stored["features"], json.loads(str(stored["protocol"])))
    except FileNotFoundError:
        raise FileNotFoundError(f"no reference at {path}") from None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} holds no reference features with their protocol: make it with --save-reference"
        ) from error
    for key in COMPARED:
        if reference.protocol.get(key) != expected[key]:
            raise ValueError(
                f"{path} cannot be compared: its {key} is {reference.protocol.get(key)}, here it is {expected[key]}"
            )
    return reference
