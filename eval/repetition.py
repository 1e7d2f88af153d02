"""How often an image shows its object, estimated without a trained classifier: windows that resemble the prompt.

Object repetition is ScaleCrafter's subject, and no published metric counts it. Windows of several sizes, and the whole
image, are compared with a target in a feature space: the embedding of the prompt's text (CLIP) or of the same prompt's
image at training size (CLIP, DINOv2). A window on a whole object resembles the target; one on a part of it or on
background resembles it less. As in non-maximum suppression, windows are kept by descending similarity unless they
overlap a kept one. The kept windows within ``margin`` of the best similarity count as copies.

Limits: copies smaller than the smallest window are merged. A prompt that asks for many objects counts as repetition,
so compare methods on the same prompts. ``margin`` is a difference of cosines and depends on the feature space. On
rendered scenes, in the features of the scenes model, which were not made for this, one copy is counted as 1.4,
four as 2.2 and sixteen as 10 (rank correlation 0.8): the result ranks methods, it is not a count to quote. For scenes
use the trained counter of `experiments.scenes.scene_counter` instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.features import FeatureExtractor

MAX_OVERLAP = 0.3  # share of the smaller of two windows; above it they show the same copy


@dataclass(frozen=True)
class CopyCounter:
    """Counts square windows that resemble a target, at most half a window apart.

    Args:
        divisions: window sides are 1/k of the image's shorter side for each k.
        margin: how far below the best similarity (cosine) a copy may be.
    """

    divisions: Sequence[int] = (2, 3, 4)
    margin: float = 0.05

    def __post_init__(self) -> None:
        if not self.divisions or min(self.divisions) < 2 or self.margin < 0:
            raise ValueError(f"windows need divisions of at least 2 and a margin of at least 0, not {self}")

    def boxes(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """(top, left, height, width) in pixels of the whole image and of every window."""
        boxes = [(0, 0, height, width)]
        for division in self.divisions:
            side = min(height, width) // division
            boxes += [(top, left, side, side) for top in starts(height, side) for left in starts(width, side)]
        return boxes

    def count(self, image: np.ndarray, extractor: FeatureExtractor, target: np.ndarray) -> int:
        """Number of copies, at least 1.

        Args:
            image: (H, W, 3) uint8.
            extractor: of the feature space of ``target``.
            target: (dim,) features of what is counted.
        """
        boxes = self.boxes(*image.shape[:2])
        features = np.concatenate([extractor(image[None, t : t + h, le : le + w]) for t, le, h, w in boxes])
        cosines = features @ target / (np.linalg.norm(features, axis=1) * np.linalg.norm(target))
        kept: list[int] = []
        for i in np.argsort(-cosines, kind="stable"):
            if cosines[i] < cosines.max() - self.margin:
                break
            if all(overlap(boxes[i], boxes[j]) <= MAX_OVERLAP for j in kept):
                kept.append(int(i))
        return len(kept)


def starts(length: int, side: int) -> list[int]:
    """Evenly spaced window positions that cover the length, neighbours overlapping by half a window or more."""
    count = int(np.ceil((length - side) / (side / 2))) + 1
    return np.unique(np.linspace(0, length - side, count).round().astype(int)).tolist()


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection of two (top, left, height, width) boxes as a share of the smaller one."""
    rows = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    columns = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(rows, 0) * max(columns, 0) / min(a[2] * a[3], b[2] * b[3])
