"""The same two folders scored by this project and by torch-fidelity, clean-fid and torchmetrics themselves.

All use one file of Inception weights. Each library reads and resizes the images itself, and this project's score uses
the resizing of that library (`eval.resize`). KID is compared on one subset that holds all images, so that no random
subsets differ. clean-fid runs the network of this project, because its own TorchScript file cannot be built from other
weights: what is compared for it is reading, resizing and statistics.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eval.extractors import INCEPTION_FILE, Inception
from eval.features import images_to_features
from eval.fid import features_to_fid
from eval.image_sets import find_images
from eval.images import ImageFile
from eval.kid import features_to_kid

LIBRARIES = {"torch-fidelity": "legacy", "torchmetrics": "legacy", "clean-fid": "clean"}  # with their resizing
BATCH = 16
KID_SCALE = 1e-3  # torch-fidelity and torchmetrics sum kernel values above 1 in float32: absolute errors of 3e-7


@dataclass(frozen=True)
class Comparison:
    """A score of two folders computed by a library and by this project."""

    library: str
    metric: str
    theirs: float
    ours: float

    @property
    def difference(self) -> float:
        """Relative to the library's score; that of a KID below ``KID_SCALE`` relative to ``KID_SCALE``."""
        floor = KID_SCALE if self.metric == "KID" else np.finfo(float).tiny
        return abs(self.ours - self.theirs) / max(abs(self.theirs), floor)


def compare_libraries(images: Path, reference: Path, weights: Path) -> list[Comparison]:
    """FID and KID of two folders by every library of ``LIBRARIES`` and by this project.

    Args:
        images: generated images: a folder or a run.
        reference: real images: a folder or a run. The larger set is cut to the size of the smaller one.
        weights: file of `eval.extractors.INCEPTION_FILE`'s format.

    Raises:
        FileNotFoundError: no images, or no weights.
        ValueError: fewer than two images, images in tar shards, or a file with other weights.
    """
    sides = find_images(images), find_images(reference)
    count = min(len(side) for side in sides)
    if count < 2:
        raise ValueError(f"a score needs at least 2 images on each side, not {count}")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # With fewer images than dimensions clean-fid's matrix is singular: whether that matters is what is measured.
        warnings.filterwarnings("ignore", "Matrix is singular")
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all")
        folders = [link_images(side[:count], Path(folder) / name) for side, name in zip(sides, "ab", strict=True)]
        ours = {how: our_scores(folders, weights, how, Path(folder)) for how in set(LIBRARIES.values())}
        found = []
        for library, how in LIBRARIES.items():
            theirs = SCORERS[library](folders, weights)
            found += [Comparison(library, metric, theirs[metric], ours[how][metric]) for metric in ("FID", "KID")]
    return found


def link_images(images: Sequence[ImageFile], folder: Path) -> Path:
    """A folder with links to the images in their order, as the libraries want them; ValueError for tar shards."""
    folder.mkdir()
    for i, image in enumerate(images):
        if image.member:
            raise ValueError(f"{image} lies in a tar file, which the libraries do not read: give folders of images")
        (folder / f"{i:06d}{image.path.suffix.lower()}").symlink_to(image.path.resolve())
    return folder


def our_scores(folders: Sequence[Path], weights: Path, how: str, cache: Path) -> dict[str, float]:
    """FID and KID as this project computes them, with resizing ``how``."""
    extractor = Inception(weights, how)
    x, y = (images_to_features(find_images(each), extractor, cache_dir=cache)[0] for each in folders)
    return {"FID": features_to_fid(x, y), "KID": features_to_kid(x, y)}


def torch_fidelity_scores(folders: Sequence[Path], weights: Path) -> dict[str, float]:
    """``torch_fidelity.calculate_metrics``."""
    from torch_fidelity import calculate_metrics

    sizes = [image.size() for each in folders for image in find_images(each)]
    found = calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        cuda=torch.cuda.is_available(),
        batch_size=BATCH if len(set(sizes)) == 1 else 1,  # its loader stacks images
        fid=True,
        kid=True,
        kid_subsets=1,
        kid_subset_size=len(sizes) // 2,
        feature_extractor_weights_path=str(weights),
        cache=False,
        save_cpu_ram=True,  # no worker processes
        verbose=False,
    )
    return {"FID": found["frechet_inception_distance"], "KID": found["kernel_inception_distance_mean"]}


def torchmetrics_scores(folders: Sequence[Path], weights: Path) -> dict[str, float]:
    """FrechetInceptionDistance and KernelInceptionDistance, without the antialiasing that torchmetrics 1.8 made its
    default: with it, it agrees with neither of the others.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3
    from torchmetrics.image.kid import KernelInceptionDistance

    network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(weights), antialias=False)
    metrics: dict[str, Any] = {
        "FID": FrechetInceptionDistance(network),
        "KID": KernelInceptionDistance(network, subsets=1, subset_size=len(find_images(folders[0]))),
    }
    for each, real in zip(folders, (False, True), strict=True):
        for image in find_images(each):
            pixels = torch.from_numpy(image.pixels()).permute(2, 0, 1)[None]
            for metric in metrics.values():
                metric.update(pixels, real=real)
    return {"FID": float(metrics["FID"].compute()), "KID": float(metrics["KID"].compute()[0])}


def cleanfid_scores(folders: Sequence[Path], weights: Path) -> dict[str, float]:
    """``cleanfid.fid``: its reading, resizing and statistics around this project's network."""
    from cleanfid import fid

    extractor = Inception(weights)

    def network(pixels: Tensor) -> Tensor:
        features: Tensor = extractor.model((pixels - 128) / 128)
        return features

    x, y = (
        fid.get_folder_features(
            str(each), network, num_workers=0, batch_size=BATCH, device=extractor.device, mode="clean", verbose=False
        ).astype(np.float64)
        for each in folders
    )
    kid = fid.kernel_distance(x, y, num_subsets=1, max_subset_size=len(x))
    return {"FID": float(fid.fid_from_feats(x, y)), "KID": kid}


SCORERS: Mapping[str, Callable[[Sequence[Path], Path], dict[str, float]]] = {
    "torch-fidelity": torch_fidelity_scores,
    "torchmetrics": torchmetrics_scores,
    "clean-fid": cleanfid_scores,
}


@contextmanager
def inception_at_hand(path: Path | None) -> Iterator[tuple[Path, str]]:
    """The weights to compare with, and what they are: the given file, else torch-fidelity's in the cache of torch.hub,
    else random ones of the true architecture in a temporary file. Nothing is downloaded.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    if path is not None:
        yield path, str(path)
    elif cached.is_file():
        yield cached, str(cached)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield random_inception(Path(folder) / "inception.pth"), f"random weights (no {INCEPTION_FILE} at hand)"


def random_inception(path: Path) -> Path:
    """Write torch-fidelity's InceptionV3 with random weights, always the same ones, in the format of its weights."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        """The library's class loads weights in its constructor: this one keeps its initial ones."""

        def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
            return None

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = Untrained("inception", ["2048"], feature_extractor_weights_path=empty).state_dict()
        for value in state.values():
            if value.is_floating_point() and value.ndim == 4:
                nn.init.kaiming_normal_(value)
    torch.save(state, path)
    return path
