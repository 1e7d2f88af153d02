"""Feature spaces by name, and sets of pictures in them: what scoring a run and scoring two folders share."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eval.crops import WHOLE, Cut
from eval.extractors import VITS, Inception, ViT
from eval.features import FeatureExtractor, images_to_features
from eval.images import Picture
from eval.index import look_up
from eval.reference import Reference, load_reference
from eval.resize import RESIZES
from eval.sources import find_pictures
from experiments.scenes.features import SceneFeatures
from experiments.scenes.pictures import rendered_pictures

EXTRACTORS = ("inception", *VITS, "scenes")
SCENES = "scenes"  # as a reference: rendered at the size of the generated pictures


@cache
def build_extractor(name: str, weights: str | None = None, how: str = "clean") -> FeatureExtractor:
    """The feature space of a name; errors say which file or model is missing.

    Args:
        weights: file of inception, folder or hub id of dinov2 and clip, folder of the scenes classifier; None: theirs.
        how: resizing to the extractor's input, see `eval.resize`.
    """
    if name not in EXTRACTORS:
        raise ValueError(f"no extractor {name!r}: choose from {', '.join(EXTRACTORS)}")
    if how not in RESIZES:
        raise ValueError(f"resize is one of {', '.join(RESIZES)}, not {how!r}")
    if name == "scenes":
        return SceneFeatures(Path(weights)) if weights else SceneFeatures()
    if name == "inception":
        return Inception(Path(weights) if weights else None, how)
    return ViT(name, weights, how)


def protocol_of(extractor: FeatureExtractor, cut: Cut) -> dict[str, Any]:
    """What has to be alike on both sides of a score, and in all rows of a table."""
    return {
        "extractor": extractor.name,
        "extractor_sha256": getattr(extractor, "sha256", extractor.digest),
        "resizing": extractor.resizing,
        "cut": str(cut),
    }


@dataclass(frozen=True)
class ReferenceSource:
    """Where reference pictures come from.

    Args:
        source: a folder, a run, tar shards (`eval.sources.find_pictures`), a file of `eval.reference`, or "scenes".
        count: scenes to render.
        seed: which scenes.
        minimum_side: real pictures whose shorter side is below it are left out and counted. None: for crops that of
            the generated pictures, because nothing is ever enlarged to be cut; 0 without crops.
    """

    source: str
    count: int = 0
    seed: int = 0
    minimum_side: int | None = None

    @property
    def is_file(self) -> bool:
        """Features instead of pictures."""
        return self.source.endswith(".npz")

    def check(self) -> None:
        """FileNotFoundError or ValueError if nothing is there."""
        if self.is_file and not Path(self.source).is_file():
            raise FileNotFoundError(f"no reference at {self.source}")
        if not self.is_file:
            self.pictures(1, 1)

    def pictures(self, height: int, width: int) -> Sequence[Picture]:
        if self.source == SCENES:
            return rendered_pictures(self.count, self.seed, height, width)
        return find_pictures(Path(self.source))

    def readers(self) -> AbstractContextManager[Executor | None]:
        """Rendering needs processes, where reading files does with the threads that None stands for."""
        return ProcessPoolExecutor() if self.source == SCENES else nullcontext()

    def features(
        self, extractor: FeatureExtractor, cuts: Sequence[Cut], cache_dir: Path, height: int, width: int
    ) -> list[Reference]:
        """A reference for each cut, for generated pictures of ``height`` x ``width``."""
        if self.is_file:
            return [load_reference(Path(self.source), protocol_of(extractor, cut)) for cut in cuts]
        found = self.pictures(height, width)
        if self.minimum_side is not None:
            needed = self.minimum_side
        else:
            needed = 0 if all(cut == WHOLE for cut in cuts) else min(height, width)
        facts = look_up(found, cache_dir)
        kept = [picture for picture, each in zip(found, facts, strict=True) if min(each.height, each.width) >= needed]
        if len(kept) < 2:
            raise ValueError(
                f"a reference needs 2 images: of {len(found)} in {self.source} {len(kept)} have {needed} pixels or "
                "more on the shorter side, and none is enlarged"
            )
        with self.readers() as pool:
            arrays = images_to_features(kept, extractor, cache_dir=cache_dir, cuts=cuts, pool=pool)
        about = {"source": self.describe(height, width), "n": len(kept), "left_out": len(found) - len(kept)}
        pairs = zip(cuts, arrays, strict=True)
        return [Reference(array, protocol_of(extractor, cut) | about) for cut, array in pairs]

    def describe(self, height: int, width: int) -> str:
        if self.source == SCENES:
            return f"{self.count} scenes rendered at {height}x{width}, seed {self.seed}"
        return f"{self.source}, shorter side from {self.minimum_side}" if self.minimum_side else self.source
