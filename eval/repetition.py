"""How often a picture shows its object, for models without a classifier: windows that look like the prompt.

ScaleCrafter's subject is the repeated object, and no published metric counts it. Here windows of several sizes over
the picture, and the picture itself, are compared with a target in a feature space: the text's embedding (CLIP), or
the embedding of the same prompt's picture at training size (CLIP, DINOv2). A window that holds a whole object looks
like the target, a part of one or background less. Windows are kept greedily, most alike first, none that overlaps a
kept one: as many as are within ``margin`` of the best count as copies.

Limits: copies smaller than the smallest window count as one; a prompt for many objects counts as repetition (compare
methods on the same prompts, not single pictures with one); ``margin`` is in units of cosine and depends on the
feature space. On rendered scenes with 1 to 16 copies, in the features of the scenes classifier, which were not made
for it: one copy is counted as 1.4, four as 2.2, sixteen as 10, rank correlation 0.8. So it orders methods, and is no
count to be quoted. For scenes there is a trained count that is (`experiments.scenes.features`): use that there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.features import FeatureExtractor

OVERLAP = 0.3  # of the smaller of two windows: more is the same copy


@dataclass(frozen=True)
class Windows:
    """Square windows of 1/k of the shorter side for each k of ``divisions``, half a window apart at most.

    Args:
        margin: how much less alike than the best window a copy may be, in units of cosine.
    """

    divisions: Sequence[int] = (2, 3, 4)
    margin: float = 0.05

    def __post_init__(self) -> None:
        if not self.divisions or min(self.divisions) < 2 or self.margin < 0:
            raise ValueError(f"windows need divisions of 2 and more and a margin of 0 or more, not {self}")

    def boxes(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """(top, left, height, width) of the picture itself and of every window."""
        found = [(0, 0, height, width)]
        for division in self.divisions:
            side = min(height, width) // division
            found += [(top, left, side, side) for top in starts(height, side) for left in starts(width, side)]
        return found

    def copies(self, image: np.ndarray, extractor: FeatureExtractor, target: np.ndarray) -> int:
        """How often the (H, W, 3) uint8 picture shows what the (dim,) target looks like, at least once."""
        boxes = self.boxes(*image.shape[:2])
        features = np.concatenate([extractor(image[None, t : t + h, le : le + w]) for t, le, h, w in boxes])
        alike = features @ target / (np.linalg.norm(features, axis=1) * np.linalg.norm(target))
        kept: list[int] = []
        for i in np.argsort(-alike, kind="stable"):
            if alike[i] < alike.max() - self.margin:
                break
            if all(overlap(boxes[i], boxes[j]) <= OVERLAP for j in kept):
                kept.append(int(i))
        return len(kept)


def starts(length: int, side: int) -> list[int]:
    """Evenly spread first pixels of windows that cover the length, neighbours sharing half or more."""
    count = int(np.ceil((length - side) / (side / 2))) + 1
    return np.unique(np.linspace(0, length - side, count).round().astype(int)).tolist()


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Shared area of two (top, left, height, width) boxes relative to the smaller one."""
    rows = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    columns = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(rows, 0) * max(columns, 0) / min(a[2] * a[3], b[2] * b[3])
