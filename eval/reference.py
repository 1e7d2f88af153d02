"""Features of a reference set with the protocol they were extracted under, stored in one file.

Scoring against such a file needs no reference images. The features are kept, not only their mean and covariance: KID
and precision and recall need them. clean-fid's custom statistics can be read too.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cleanfid
import numpy as np

from eval.crops import WHOLE
from eval.extractors import INCEPTION_SHA256, Inception
from eval.features import IN_MEMORY
from eval.files import open_atomically

COMPARED = ("extractor", "extractor_sha256", "resizing", "crops")  # must be equal on both sides of a score
DAMAGED = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile)  # what np.load raises


@dataclass(frozen=True)
class Reference:
    """Features (m, dim) float32 and their protocol.

    The protocol's keys are extractor, extractor_sha256, resizing, crops, source, n (number of images) and left_out
    (number of images that were too small).
    """

    features: np.ndarray
    protocol: dict[str, Any]


def save_reference(reference: Reference, path: Path) -> None:
    """Write features and protocol to an .npz file."""
    with open_atomically(path) as file:
        np.savez(file, features=reference.features, protocol=np.array(json.dumps(reference.protocol)))


def load_reference(path: Path, expected: Mapping[str, Any]) -> Reference:
    """The reference in a file of `save_reference`.

    Statistics of other programs (mu, sigma) are refused: they do not record how they were computed.

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
            f"{path} holds no reference features with their protocol: create it with --save-reference"
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


def load_cleanfid_reference(name: str) -> Reference:
    """The features that ``cleanfid.fid.make_custom_stats(name, folder, mode="clean")`` stored for KID.

    Their protocol is Inception with its published weights, clean resizing to 299x299 and whole images. Compare it with
    that of the generated images with `require_comparable`.

    Raises:
        FileNotFoundError: no statistics of that name.
        ValueError: only mean and covariance are stored, or the file is damaged.
    """
    stem = Path(cleanfid.__file__).parent / "stats" / f"{name}_clean_custom_na".lower()
    moments, kid = stem.with_name(f"{stem.name}.npz"), stem.with_name(f"{stem.name}_kid.npz")
    advice = f'run cleanfid.fid.make_custom_stats("{name}", FOLDER, mode="clean")'
    if not kid.is_file():
        if moments.is_file():
            raise ValueError(f"clean-fid has only mean and covariance for {name!r}, no features: {advice}")
        raise FileNotFoundError(f"clean-fid has no statistics {name!r} ({kid}): {advice}")
    try:
        with np.load(kid, allow_pickle=False) as stored:
            features = np.asarray(stored["feats"], dtype=np.float32)
    except DAMAGED as error:
        raise ValueError(f"{kid} holds no features: {advice}") from error
    if features.ndim != 2 or features.shape[1] != Inception.dim:
        raise ValueError(f"{kid} holds features of shape {features.shape}, expected (n, {Inception.dim}): {advice}")
    protocol = {
        "extractor": Inception.name,
        # clean-fid ships the same network as TorchScript; this is the hash of torch-fidelity's file.
        "extractor_sha256": INCEPTION_SHA256,
        "resizing": f"clean, to {Inception.side}x{Inception.side}",
        "crops": str(WHOLE),
        "source": f"cleanfid:{name}",
        "n": len(features),
        "left_out": 0,
    }
    return Reference(features, protocol)


def require_comparable(reference: Reference, expected: Mapping[str, Any], label: str) -> None:
    """ValueError naming the first key of ``COMPARED`` in which the reference's protocol differs from ``expected``."""
    for key in COMPARED:
        found = reference.protocol.get(key)
        if found != expected[key]:
            raise ValueError(f"{label} cannot be compared: its {key} is {found}, here it is {expected[key]}")
