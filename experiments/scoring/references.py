"""Reference sets: real images, or features of them, that generated images are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from eval.crops import WHOLE, Cropping
from eval.features import FeatureExtractor, images_to_features
from eval.image_sets import find_images
from eval.images import LazyImage
from eval.index import look_up
from eval.reference import Reference, load_cleanfid_reference, load_reference, require_comparable
from experiments.scenes.rendered import rendered_images
from experiments.scoring.feature_spaces import protocol_of
from experiments.setup.runs import ReferenceSpec

SCENES = "scenes"  # rendered at the size of the generated images
CLEANFID = "cleanfid:"  # followed by the name of clean-fid's custom statistics


def check_reference(spec: ReferenceSpec) -> None:
    """FileNotFoundError or ValueError if there is nothing at ``spec.source``."""
    if spec.source.startswith(CLEANFID):
        load_cleanfid_reference(spec.source.removeprefix(CLEANFID))
    elif is_features(spec):
        if not Path(spec.source).is_file():
            raise FileNotFoundError(f"no reference at {spec.source}")
    else:
        reference_images(spec, 1, 1)


def is_features(spec: ReferenceSpec) -> bool:
    """Whether the source is a file of `eval.reference` instead of images."""
    return spec.source.endswith(".npz")


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

    Real images whose shorter side is below ``spec.minimum_side`` are left out and counted. None means the generated
    images' shorter side if there are crops, because no crop is ever enlarged, and 0 otherwise.

    Raises:
        ValueError: fewer than two images remain, or stored features were made under another protocol.
        FileNotFoundError: nothing at ``spec.source``.
    """
    if is_features(spec):
        return [load_reference(Path(spec.source), protocol_of(extractor, each)) for each in croppings]
    if spec.source.startswith(CLEANFID):
        stored = load_cleanfid_reference(spec.source.removeprefix(CLEANFID))
        for each in croppings:
            require_comparable(stored, protocol_of(extractor, each), spec.source)
        return [stored] * len(croppings)
    found = reference_images(spec, *size)
    if spec.minimum_side is not None:
        needed = spec.minimum_side
    else:
        needed = 0 if all(each == WHOLE for each in croppings) else min(size)
    infos = look_up(found, cache_dir)
    kept = [image for image, each in zip(found, infos, strict=True) if min(each.height, each.width) >= needed]
    if len(kept) < 2:
        raise ValueError(
            f"a reference needs 2 images: {len(kept)} of {len(found)} in {spec.source} have {needed} pixels or more "
            "on the shorter side, and none is enlarged"
        )
    with readers(spec) as pool:
        arrays = images_to_features(kept, extractor, cache_dir=cache_dir, croppings=croppings, pool=pool)
    about = {"source": describe(spec, *size), "n": len(kept), "left_out": len(found) - len(kept)}
    pairs = zip(croppings, arrays, strict=True)
    return [Reference(array, protocol_of(extractor, each) | about) for each, array in pairs]


def readers(spec: ReferenceSpec) -> AbstractContextManager[Executor | None]:
    """Processes for rendering; None, which means threads, for reading files."""
    return ProcessPoolExecutor() if spec.source == SCENES else nullcontext()


def describe(spec: ReferenceSpec, height: int, width: int) -> str:
    """The source, for protocols."""
    if spec.source == SCENES:
        return f"{spec.count} scenes rendered at {height}x{width}, seed {spec.seed}"
    return f"{spec.source}, shorter side from {spec.minimum_side}" if spec.minimum_side else spec.source
