"""Counting windows that resemble the prompt, on coloured squares and on rendered scenes with known copies."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from eval.repetition import CopyCounter, overlap, starts
from experiments.scenes.renderer.scene import render, sample_scenes
from experiments.scenes.scene_features import SceneFeatures
from tests.eval.helpers import MeanColour


@pytest.mark.parametrize(("height", "width"), [(256, 256), (128, 300)])
def test_windows_cover_the_image(height: int, width: int) -> None:
    boxes = CopyCounter((2, 4)).boxes(height, width)
    assert boxes[0] == (0, 0, height, width)
    for side in (min(height, width) // 2, min(height, width) // 4):
        seen = np.zeros((height, width), int)
        for top, left, rows, columns in boxes:
            if rows == side:
                assert columns == side
                seen[top : top + side, left : left + side] += 1
        assert seen.min() >= 1
        assert seen.shape == (height, width)


def test_neighbouring_windows_overlap_by_half() -> None:
    for length, side in ((256, 64), (100, 33), (64, 64)):
        found = starts(length, side)
        assert found[0] == 0
        assert found[-1] == length - side
        assert all(b - a <= side / 2 + 1 for a, b in zip(found, found[1:], strict=False))


def test_overlap_is_relative_to_the_smaller_box() -> None:
    assert overlap((0, 0, 10, 10), (0, 0, 100, 100)) == 1
    assert overlap((0, 0, 10, 10), (5, 5, 10, 10)) == 0.25
    assert overlap((0, 0, 10, 10), (10, 0, 10, 10)) == 0


class Hue(MeanColour):
    """Mean colours, whose cosine compares hues."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1, 3).mean(axis=1)


def test_coloured_squares_are_counted() -> None:
    """Red squares as large as the smallest window, on a green ground."""
    for copies in (1, 2, 5, 9):
        image = np.full((120, 120, 3), (20, 200, 20), np.uint8)
        for i in range(copies):
            top, left = 45 * (i // 3), 45 * (i % 3)
            image[top : top + 30, left : left + 30] = (200, 20, 20)
        assert CopyCounter((4,), margin=1e-3).count(image, Hue(), np.array([200.0, 20, 20])) == copies


def test_counts_rank_rendered_scenes_by_copies() -> None:
    """As documented: a ranking, not a count."""
    extractor, counted, truth = SceneFeatures(), [], []
    for i, scene in enumerate(sample_scenes(6, 5)):
        copies = (1, 4, 16)[i % 3]
        target = extractor(render(replace(scene, seed=scene.seed + 1), 64, 64)[None])[0]
        counted.append(CopyCounter().count(render(replace(scene, copies=copies), 160, 160), extractor, target))
        truth.append(copies)
    assert spearmanr(truth, counted).statistic > 0.7
    means = [np.mean([c for c, t in zip(counted, truth, strict=True) if t == copies]) for copies in (1, 4, 16)]
    assert 1 <= means[0] < 2 < means[2] / 3


class Remembering(SceneFeatures):
    """The features of the scenes model, extracted once from equal windows."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[bytes, np.ndarray] = {}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        key = bytes(str(images.shape), "ascii") + images.tobytes()
        if key not in self.known:
            self.known[key] = super().__call__(images)
        return self.known[key]


def test_larger_margin_counts_more_copies() -> None:
    scene = sample_scenes(1, 5)[0]
    extractor = Remembering()
    target, image = extractor(render(scene, 64, 64)[None])[0], render(replace(scene, copies=9), 128, 128)
    counts = [CopyCounter(margin=margin).count(image, extractor, target) for margin in (0, 0.05, 2)]
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[2] > counts[0]


def test_invalid_windows_raise() -> None:
    for options in ({"divisions": ()}, {"divisions": (1, 2)}, {"margin": -0.1}):
        with pytest.raises(ValueError, match="windows need divisions of at least 2"):
            CopyCounter(**options)
