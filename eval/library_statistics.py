"""Reference statistics that clean-fid and torch-fidelity have stored: features, or only their mean and covariance.

How a file was made stands in its name alone, as the libraries give it. Accepted are those of the network that FID is
defined on (`eval.extractors.Inception`) with its published weights:

    clean-fid       NAME_clean_SPLIT_SIZE.npz                  mean and covariance     resizing: clean
                    NAME_clean_SPLIT_SIZE_kid.npz              features                clean
    torch-fidelity  NAME-inception-v3-compat-features-2048.pt  features                legacy
                    NAME-inception-v3-compat-stat-fid-2048.pt  mean and covariance     legacy

Mean and covariance give FID only, and do not say how many images they come from.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cleanfid
import numpy as np
import torch

from eval.crops import WHOLE
from eval.extractors import INCEPTION_SHA256, Inception
from eval.fid import Stats
from eval.reference import DAMAGED, Reference

CLEANFID = re.compile(r".+_(clean|legacy_tensorflow|legacy_pytorch)(_clip_\w+?)?_[a-z0-9]+_(na|\d+)(_kid)?\.npz")
FIDELITY = re.compile(r".+-inception-v3-compat-(features|stat-fid)-2048\.pt")
KNOWN = (
    "known are clean-fid's NAME_clean_SPLIT_SIZE[_kid].npz, torch-fidelity's "
    "NAME-inception-v3-compat-(features|stat-fid)-2048.pt, and files of --save-reference"
)
# What numpy's arrays consist of in a file of torch; anything else in it is refused.
ARRAYS = [np.ndarray, np.dtype, np.dtypes.Float32DType, np.dtypes.Float64DType]


def is_library_file(path: Path) -> bool:
    """Whether the name is one that clean-fid or torch-fidelity gives."""
    return path.suffix == ".pt" or CLEANFID.fullmatch(path.name) is not None


def load_library_reference(path: Path) -> Reference:
    """The reference in a file of clean-fid or torch-fidelity; of clean-fid's pair of files the one with features.

    Raises:
        FileNotFoundError: no such file.
        ValueError: its name does not say that it was made under a known protocol, or it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no reference at {path}")
    if FIDELITY.fullmatch(path.name):
        return reference_of(read_fidelity(path), f"legacy, to {Inception.side}x{Inception.side}", str(path))
    found = CLEANFID.fullmatch(path.name)
    if found is None:
        raise ValueError(f"{path} does not say how it was computed: {KNOWN}")
    mode, network, _, kid = found.groups()
    if mode != "clean" or network:
        raise ValueError(
            f"{path} is of clean-fid's {mode}{network or ''}, not comparable with any score here: {KNOWN}"
        )
    features = path.with_name(f"{path.stem}_kid.npz")
    place = path if kid or not features.is_file() else features
    return reference_of(read_cleanfid(place), f"clean, to {Inception.side}x{Inception.side}", str(place))


def load_cleanfid_reference(name: str) -> Reference:
    """The features that ``cleanfid.fid.make_custom_stats(name, folder, mode="clean")`` stored for KID.

    Raises:
        FileNotFoundError: no statistics of that name.
        ValueError: only mean and covariance are stored, or the file is damaged.
    """
    stem = Path(cleanfid.__file__).parent / "stats" / f"{name}_clean_custom_na".lower()
    moments, kid = stem.with_name(f"{stem.name}.npz"), stem.with_name(f"{stem.name}_kid.npz")
    advice = f'run cleanfid.fid.make_custom_stats("{name}", FOLDER, mode="clean")'
    if kid.is_file():
        reference = load_library_reference(kid)
        return Reference(reference.features, reference.protocol | {"source": f"cleanfid:{name}"})
    if moments.is_file():
        raise ValueError(
            f"clean-fid has only mean and covariance for {name!r}, no features: {advice}, or give the file "
            f"{moments}, for FID alone"
        )
    raise FileNotFoundError(f"clean-fid has no statistics {name!r} ({kid}): {advice}")


def read_cleanfid(path: Path) -> np.ndarray | Stats:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored["feats"] if "feats" in stored else as_stats(stored["mu"], stored["sigma"])
    except DAMAGED as error:
        raise ValueError(f"{path} holds no features of clean-fid ({error}): make it again") from error


def read_fidelity(path: Path) -> np.ndarray | Stats:
    reconstruct: Any = np.zeros(0).__reduce__()[0]
    allowed: list[Any] = [*ARRAYS, reconstruct, (reconstruct, "numpy.core.multiarray._reconstruct")]
    try:
        with torch.serialization.safe_globals(allowed):
            stored = torch.load(path, map_location="cpu", weights_only=True)
        return stored.numpy() if torch.is_tensor(stored) else as_stats(stored["mu"], stored["sigma"])
    except Exception as error:  # torch.load raises whatever it stumbles over
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} holds no features of torch-fidelity ({reason}): make it again") from error


def as_stats(mean: np.ndarray, cov: np.ndarray) -> Stats:
    """Moments of unknown n; all that depends on n is whether the covariance may have full rank."""
    return Stats(np.asarray(mean, np.float64), np.asarray(cov, np.float64), len(mean) + 1)


def reference_of(found: np.ndarray | Stats, resizing: str, source: str) -> Reference:
    """With its protocol; ValueError for another number of dimensions or values that are not finite."""
    dim = Inception.dim
    if isinstance(found, Stats):
        parts, valid = [found.mean, found.cov], [(dim,), (dim, dim)]
    else:
        found = np.asarray(found, dtype=np.float32)
        parts, valid = [found], [(len(found), dim)]
    shapes = [part.shape for part in parts]
    if shapes != valid:
        raise ValueError(f"{source} holds {', '.join(map(str, shapes))}, not features (n, {dim}) or their moments")
    if not all(np.isfinite(part).all() for part in parts):
        raise ValueError(f"{source} holds values that are not finite: make it again")
    protocol = {
        "extractor": Inception.name,
        # clean-fid ships the same network as TorchScript; this is the hash of torch-fidelity's file.
        "extractor_sha256": INCEPTION_SHA256,
        "resizing": resizing,
        "crops": str(WHOLE),
        "source": source,
        "n": None if isinstance(found, Stats) else len(found),
        "left_out": 0,
    }
    return Reference(found, protocol)
