"""Reference sets: real images, or features of them, that generated images are compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from eval.crops import WHOLE, Cropping
from eval.features import FeatureExtractor, images_to_features
from eval.fid import Stats
from eval.image_sets import find_images
from eval.images import LazyImage
from eval.index import look_up
from eval.library_statistics import is_library_file, load_cleanfid_reference, load_library_reference
from eval.reference import Reference, load_reference, require_comparable
from eval.score import require_features
from experiments.scenes.rendered import rendered_images, renderers
from experiments.scoring.feature_spaces import protocol_of
from experiments.setup.runs import ReferenceSpec

SCENES = "scenes"  # rendered at the size of the generated images
STORED = (".npz", ".pt")  # files of --save-reference, and those of `eval.library_statistics`
CLEANFID = "cleanfid:"  # followed by the name of clean-fid's custom statistics


def check_reference(
    spec: ReferenceSpec,
    extractor: FeatureExtractor,
    croppings: Sequence[Cropping],
    cache_dir: Path,
    size: tuple[int, int],
    also: Sequence[str] = (),
) -> None:
    """Raise before anything is sampled if there is no reference for images of ``size``, or none that serves.

    Args:
        also: more metrics than FID and KID, see `eval.score`.

    Raises:
        FileNotFoundError: nothing at ``spec.source``.
        ValueError: fewer than ``spec.minimum_count`` images for a cropping, or a stored reference that was made under
            another protocol or cannot give these metrics.
    """
    if is_stored(spec):
        for cropping in croppings:
            require_features(stored_reference(spec, protocol_of(extractor, cropping)).features, also)
    elif spec.source == SCENES:
        require_enough(spec, spec.count, WHOLE)
    else:
        list(usable_images(spec, extractor, croppings, cache_dir, size))


def is_stored(spec: ReferenceSpec) -> bool:
    """Whether the source is features or statistics instead of images."""
    return spec.source.startswith(CLEANFID) or spec.source.endswith(STORED)


def reference_images(spec: ReferenceSpec, height: int, width: int) -> Sequence[LazyImage]:
    """The images of a folder, a run or tar shards (`eval.image_sets.find_images`), or rendered scenes of this size."""
    if spec.source == SCENES:
        return rendered_images(spec.count, spec.seed, height, width)
    return find_images(Path(spec.source))


def reference_features(
    spec: ReferenceSpec,
    extractor: FeatureExtractor,
    croppings: Sequence[Cropping],
    cache_dir: Path,
    size: tuple[int, int],
) -> list[Reference]:
    """One reference for each cropping, for generated images of ``size`` (height, width).

    Whole images and crops have references of their own: for crops, real images whose shorter side is below that of the
    generated images are left out, because no crop is ever enlarged; ``spec.minimum_side`` overrides this for both. The
    protocol has the number of images, of those left out, and a hash of the contents of all that remain.

    Raises:
        ValueError: too few images remain, or stored features were made under another protocol.
        FileNotFoundError: nothing at ``spec.source``.
    """
    if is_stored(spec):
        return [stored_reference(spec, protocol_of(extractor, each)) for each in croppings]
    usable = list(usable_images(spec, extractor, croppings, cache_dir, size))
    features: dict[Cropping, np.ndarray] = {}
    with readers(spec, *size) as pool:
        for _, same in groupby(sorted(usable, key=contents_of), contents_of):  # each image is decoded once for all
            parts = list(same)
            shared = [cropping for cropping, _, _ in parts]
            found = images_to_features(parts[0][1], extractor, cache_dir=cache_dir, croppings=shared, pool=pool)
            features |= dict(zip(shared, found, strict=True))
    return [Reference(features[cropping], protocol) for cropping, _, protocol in usable]


def contents_of(usable: tuple[Cropping, list[LazyImage], dict[str, Any]]) -> str:
    """The hash over the contents of the images that serve for a cropping."""
    digest: str = usable[2]["sha256"]
    return digest


def reference_protocols(
    spec: ReferenceSpec,
    extractor: FeatureExtractor,
    croppings: Sequence[Cropping],
    cache_dir: Path,
    size: tuple[int, int],
) -> list[dict[str, Any]]:
    """The protocols of `reference_features`, with its errors; no features are extracted."""
    if is_stored(spec):
        return [each.protocol for each in reference_features(spec, extractor, croppings, cache_dir, size)]
    return [protocol for _, _, protocol in usable_images(spec, extractor, croppings, cache_dir, size)]


def usable_images(
    spec: ReferenceSpec,
    extractor: FeatureExtractor,
    croppings: Sequence[Cropping],
    cache_dir: Path,
    size: tuple[int, int],
) -> Iterator[tuple[Cropping, list[LazyImage], dict[str, Any]]]:
    """(cropping, images that can serve for it, protocol) for each cropping; ValueError if they are too few."""
    found = reference_images(spec, *size)
    for cropping in croppings:
        kept, digest = large_enough(spec, found, cropping, cache_dir, size)
        about = {"source": describe(spec, *size), "n": len(kept), "left_out": len(found) - len(kept), "sha256": digest}
        yield cropping, kept, protocol_of(extractor, cropping) | about


def large_enough(
    spec: ReferenceSpec, found: Sequence[LazyImage], cropping: Cropping, cache_dir: Path, size: tuple[int, int]
) -> tuple[list[LazyImage], str]:
    """The images that can serve for a cropping, and the SHA-256 over their contents; ValueError if too few."""
    needed = spec.minimum_side
    if needed is None:
        needed = 0 if cropping == WHOLE else min(size)
    infos = look_up(found, cache_dir)
    pairs = [(image, each) for image, each in zip(found, infos, strict=True) if min(each.height, each.width) >= needed]
    require_enough(spec, len(pairs), cropping, f", of {len(found)} those with {needed} pixels on the shorter side")
    digest = hashlib.sha256("".join(each.digest for _, each in pairs).encode()).hexdigest()
    return [image for image, _ in pairs], digest


def require_enough(spec: ReferenceSpec, count: int | None, cropping: Cropping, reason: str = "") -> None:
    """ValueError for too few images; statistics may not say how many they come from."""
    if count is not None and count < max(2, spec.minimum_count):
        raise ValueError(
            f"the reference {spec.source} has {count} images for {cropping}{reason}: a score needs at least "
            f"{max(2, spec.minimum_count)} (metrics.reference_minimum)"
        )


def stored_reference(spec: ReferenceSpec, expected: dict[str, Any]) -> Reference:
    """From a file of `eval.reference` or of another library, refused under another protocol."""
    path = Path(spec.source)
    if spec.source.startswith(CLEANFID):
        stored = load_cleanfid_reference(spec.source.removeprefix(CLEANFID))
    elif is_library_file(path):
        stored = load_library_reference(path)
    else:
        stored = load_reference(path, expected)
    require_comparable(stored, expected, spec.source)
    require_enough(spec, stored.protocol["n"], WHOLE)
    if "sha256" in stored.protocol:
        return stored
    found = stored.features
    digest = hashlib.sha256()
    for part in (found.mean, found.cov) if isinstance(found, Stats) else (found,):
        digest.update(np.ascontiguousarray(part).data)
    return Reference(found, stored.protocol | {"sha256": digest.hexdigest()})


def readers(spec: ReferenceSpec, height: int, width: int) -> AbstractContextManager[Executor | None]:
    """What renders scenes of this size; None, which means threads, for reading files."""
    return renderers(spec.count * height * width) if spec.source == SCENES else nullcontext()


def describe(spec: ReferenceSpec, height: int, width: int) -> str:
    """The source, for protocols."""
    if spec.source == SCENES:
        return f"{spec.count} scenes rendered at {height}x{width}, seed {spec.seed}"
    return f"{spec.source}, shorter side from {spec.minimum_side}" if spec.minimum_side else spec.source
