"""How many objects an image shows, by the counter network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.scenes import WEIGHTS
from experiments.scenes.networks import REPETITION_FILE, loaded
from experiments.scenes.training.counting import CounterNetwork, count_objects


class SceneCounter:
    """Maps images (N, H, W, 3) uint8 of any size to the number of objects (N,) float32, at least 1, not rounded.

    Args:
        weights: folder of the scenes pipeline.

    Raises:
        FileNotFoundError: ``weights`` lacks the counter.
        ValueError: its file is damaged.
    """

    def __init__(self, weights: Path = WEIGHTS) -> None:
        self.network, self.digest = loaded(CounterNetwork, weights / REPETITION_FILE)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.maximum(count_objects(self.network, images), np.float32(1))
