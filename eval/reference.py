"""Features of a reference set with the protocol they were extracted under, stored in one file.

Scoring against such a file needs no reference images. The features are kept, not only their mean and covariance: KID
and precision and recall need them. Files of other libraries: `eval.library_statistics`.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.features import IN_MEMORY
from eval.fid import Stats
from eval.files import open_atomically

COMPARED = ("extractor", "extractor_sha256", "resizing", "crops")  # must be equal on both sides of a score
DAMAGED = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile)  # what np.load raises


@dataclass(frozen=True)
class Reference:
    """Features (m, dim) float32, or only their moments, and their protocol.

    The protocol's keys are extractor, extractor_sha256, resizing, crops, source, n (number of images, None if unknown)
    and left_out (number of images that were too small).
    """

    features: np.ndarray | Stats
    protocol: dict[str, Any]


def save_reference(reference: Reference, path: Path) -> None:
    """Write features and protocol to an .npz file; ValueError if there are only moments."""
    if isinstance(reference.features, Stats):
        raise ValueError(f"{reference.protocol['source']} has no features to save, only their mean and covariance")
    with open_atomically(path) as file:
        np.savez(file, features=reference.features, protocol=np.array(json.dumps(reference.protocol)))


def load_reference(path: Path, expected: Mapping[str, Any]) -> Reference:
    """The reference in a file of `save_reference`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or one that was not made under the ``expected`` protocol.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            protocol = json.loads(str(stored["protocol"]))
        reference = Reference(read_features(path), protocol)
    except FileNotFoundError:
        raise FileNotFoundError(f"no reference at {path}") from None
    except DAMAGED as error:
        raise ValueError(
            f"{path} holds no reference features with their protocol: create it with --save-reference, or leave "
            "statistics of clean-fid and torch-fidelity the names that these libraries give"
        ) from error
    require_comparable(reference, expected, str(path))
    return reference


def read_features(path: Path) -> np.ndarray:
    """The features in a file of `save_reference`; above `IN_MEMORY` mapped into memory. Raises ``DAMAGED``."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("features.npy")
        if member.file_size <= IN_MEMORY or member.compress_type != zipfile.ZIP_STORED:
            with np.load(path, allow_pickle=False) as stored:
                return stored["features"]
        with archive.open(member) as stream:
            np.lib.format.read_magic(stream)
            shape, transposed, dtype = np.lib.format.read_array_header_1_0(stream)
            header = stream.tell()
            while stream.read(1 << 22):  # to the end, where the checksum is compared
                pass
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)  # of the member's own header: the lengths of its name and extra field
        name, extra = struct.unpack("<HH", file.read(4))
    place = member.header_offset + 30 + name + extra + header
    return np.memmap(path, dtype, "r", place, shape, "F" if transposed else "C")


def require_comparable(reference: Reference, expected: Mapping[str, Any], label: str) -> None:
    """ValueError naming the first key of ``COMPARED`` in which the reference's protocol differs from ``expected``."""
    for key in COMPARED:
        found = reference.protocol.get(key)
        if found != expected[key]:
            raise ValueError(f"{label} cannot be compared: its {key} is {found}, here it is {expected[key]}")
