"""Copies of the prompted object in an image, counted by its colour: a check of the counter network that shares
nothing with it, at the image's own resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage, stats

from eval.images import ImageFile, LazyImage
from experiments.sampling.manifest import read_records
from experiments.scenes.rendered import RenderedImage
from experiments.scenes.renderer.scene import BACKGROUNDS, COLOURS, HUES, OBJECTS, Scene, sample_scenes
from experiments.scenes.scene_counter import SceneCounter

HUE_TOLERANCE = 0.035  # of a turn; the renderer varies hues by 0.012
LEAST_SATURATION, LEAST_VALUE = 0.65, 0.5  # above skies and sands of similar hue, and above wood
SMALLEST = 0.0015  # share of the image that a component must cover; a 25th copy has about 0.004
BRIDGED = 0.015  # of the shorter side: gaps of up to twice this within an object are closed (a robot's neck)
COUNTED_SEED = 84
COUNTS = (1, 2, 3, 4, 6, 9, 12, 16)


def count_components(image: np.ndarray, colour: str) -> int:
    """Connected regions of an object's colour.

    Args:
        image: (H, W, 3) uint8.
        colour: a colour of the scenes.

    Returns:
        The number of regions of the colour's hue, saturated and bright, after closing small gaps, that are not tiny.
    """
    hue, saturation, value = np.moveaxis(np.asarray(Image.fromarray(image).convert("HSV")) / 255.0, 2, 0)
    distance = np.abs(hue - HUES[colour])
    near = np.minimum(distance, 1 - distance) < HUE_TOLERANCE
    mask = near & (saturation > LEAST_SATURATION) & (value > LEAST_VALUE)
    radius = max(1, round(BRIDGED * min(mask.shape)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    closed = ndimage.binary_closing(np.pad(mask, radius), x**2 + y**2 <= radius**2)[radius:-radius, radius:-radius]
    regions, _ = ndimage.label(closed)
    areas = np.bincount(regions.ravel(), weights=mask.ravel())[1:]
    return int((areas >= SMALLEST * mask.size).sum())


@dataclass(frozen=True)
class Counted:
    """An image with its scene; ``true`` is the number of objects where it is known."""

    image: LazyImage
    scene: Scene
    method: str
    resolution: str
    true: int | None = None


def rendered_with_copies(count: int, size: int) -> list[Counted]:
    """``count`` rendered scenes of size x size pixels with 1 to 16 copies in turn."""
    found = []
    for index, scene in enumerate(sample_scenes(count, COUNTED_SEED)):
        true = COUNTS[index % len(COUNTS)]
        several = Scene(scene.object, scene.colour, scene.background, scene.seed, copies=true)
        image = RenderedImage(f"real-{index}", several, size, size)
        found.append(Counted(image, several, "rendered", f"{size}x{size}", true))
    return found


def generated_images(runs: Path) -> list[Counted]:
    """All images of the runs of the scenes model in a folder of runs.

    Raises:
        ValueError: there are none, or a prompt is not a caption of a scene.
    """
    captions = {
        scene.caption: scene for scene in (Scene(o, c, b, 0) for o in OBJECTS for c in COLOURS for b in BACKGROUNDS)
    }
    found = []
    for folder in sorted(runs.glob("scenes-*-*")):
        method = folder.name.split("-")[1]
        for record in read_records(folder):
            if record.prompt not in captions:
                raise ValueError(f"{folder}: {record.prompt!r} is not a caption of a scene, so nothing can be counted")
            image = ImageFile(folder / record.file, record.id)
            size = f"{record.height}x{record.width}"
            found.append(Counted(image, captions[record.prompt], method, size))
    if not found:
        raise ValueError(f"{runs} holds no images of the scenes model: generate some with python -m experiments.run")
    return found


def count_copies(images: Sequence[Counted]) -> pd.DataFrame:
    """Counts of every image by both routes: image, method, resolution, counter, components, true (if known)."""
    count = SceneCounter()
    rows = []
    for each in images:
        pixels = each.image.pixels()
        counts = {
            "counter": round(float(count(pixels[None])[0]), 2),
            "components": count_components(pixels, each.scene.colour),
        }
        about = {"image": each.image.name, "method": each.method, "resolution": each.resolution}
        rows.append(about | counts | {"true": each.true})
    return pd.DataFrame(rows)


def agreement(counts: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """How well one column of counts agrees with another, for each method and in total.

    Args:
        counts: as from `count_copies`, with further columns where other counts exist.
        pairs: (column, column it is compared with).

    Returns:
        Columns method, count, against, n, rank correlation (nan if one side is constant), mean error (the first minus
        the second) and mean absolute error. Rows without one of the counts are left out.
    """
    groups = [("all", counts), *((str(name), group) for name, group in counts.groupby("method"))]
    rows = []
    for method, group in groups if len(groups) > 2 else groups[1:]:
        for column, other in pairs:
            known = group[[column, other]].dropna().astype(float)
            if known.empty:
                continue
            error = known[column] - known[other]
            varied = known.nunique().min() > 1
            rank = float(stats.spearmanr(known[column], known[other]).statistic) if varied else float("nan")
            found = {"n": len(known), "rank_correlation": rank}
            found |= {"mean_error": error.mean(), "mean_absolute_error": error.abs().mean()}
            rows.append({"method": method, "count": column, "against": other} | found)
    return pd.DataFrame(rows)
