"""The structure and detail networks as feature extractors for `eval`, as judges of images and as perceptual distance.

Whole images are compared in the features of the structure network, which sees what is where, and crops in those of the
detail network, which sees damage at the scale of pixels.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.scenes import WEIGHTS
from experiments.scenes.model import BASE_PX
from experiments.scenes.networks import DETAIL_FILE, STRUCTURE_FILE, batches, loaded
from experiments.scenes.training import detail, structure
from experiments.scenes.training.autoencoder import to_tensor
from experiments.scenes.training.damaged import DAMAGES


class SceneFeatures:
    """Maps images (N, H, W, 3) uint8 of any size to features (N, 64) float32, resizing to 128x128 with antialiasing.

    Args:
        weights: folder of the scenes pipeline.

    Raises:
        FileNotFoundError: ``weights`` lacks the structure network.
        ValueError: its file is damaged.
    """

    name = "scenes"
    dim = structure.FEATURES
    side = BASE_PX
    resizing = f"bicubic, antialiased, to {BASE_PX}x{BASE_PX}"

    def __init__(self, weights: Path = WEIGHTS) -> None:
        self.weights = weights
        self.network, self.digest = loaded(structure.StructureNetwork, weights / STRUCTURE_FILE)

    @cached_property
    def for_crops(self) -> DetailFeatures:
        """The extractor of crops, see `eval.features.extractor_for`; raises as `DetailFeatures`."""
        return DetailFeatures(self.weights)

    @staticmethod
    def prepare(images: NDArray[np.uint8]) -> Tensor:
        """Resize (N, H, W, 3) uint8 to (N, 3, 128, 128) float32 in [-1, 1]."""
        pixels = to_tensor(images)
        if pixels.shape[2:] != (BASE_PX, BASE_PX):
            pixels = F.interpolate(pixels, (BASE_PX, BASE_PX), mode="bicubic", antialias=True).clamp(-1, 1)
        return pixels

    @torch.no_grad()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: Tensor = self.network(self.prepare(images)) / self.network.scale
        return features.numpy()

    @torch.no_grad()
    def predict(self, images: NDArray[np.uint8]) -> dict[str, list[str]]:
        """The most likely object, colour and background of each image; lists of N names."""
        parts = [self.network.describe(self.prepare(part)) for part in batches(images)]
        logits = {name: torch.cat([part[name] for part in parts]) for name in structure.FACTORS}
        return {
            name: [values[i] for i in logits[name].argmax(1).tolist()] for name, values in structure.FACTORS.items()
        }


class DetailFeatures:
    """Maps crops (N, H, W, 3) uint8 to features (N, 64) float32, at their own size; trained with 64x64.

    Args:
        weights: folder of the scenes pipeline.

    Raises:
        FileNotFoundError: ``weights`` lacks the detail network.
        ValueError: its file is damaged.
    """

    name = "scenes detail"
    dim = detail.FEATURES
    side = detail.CROP_PX
    resizing = "none"

    def __init__(self, weights: Path = WEIGHTS) -> None:
        self.network, self.digest = loaded(detail.DetailNetwork, weights / DETAIL_FILE)

    @torch.no_grad()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: Tensor = self.network(to_tensor(images)) / self.network.scale
        return features.numpy()

    @torch.no_grad()
    def damage(self, images: NDArray[np.uint8]) -> tuple[list[str], NDArray[np.float32]]:
        """The most likely kind of damage of each crop, "none" or one of `eval.corruptions`, and its strength (N,):
        about 0 if untouched, 1 at the last step.
        """
        found = self.network.describe(to_tensor(images))
        return [DAMAGES[i] for i in found["damage"].argmax(1).tolist()], found["strength"].numpy()


class SceneDistance:
    """Perceptual distance in the manner of LPIPS (Zhang et al., 2018), on the layers of the structure network.

    Squared differences of channel-normalised features, averaged over positions and summed over layers. Maps two
    batches (N, 3, H, W) in [-1, 1] of any one size to distances (N,); differentiable.
    """

    def __init__(self, weights: Path = WEIGHTS) -> None:
        features = SceneFeatures(weights)
        self.name = f"scenes {features.digest[:16]}"
        self.trunk = features.network.trunk

    def layers(self, images: Tensor) -> list[Tensor]:
        """Channel-normalised outputs of all activations."""
        found, maps = [], images
        for module in self.trunk:
            maps = module(maps)
            if isinstance(module, nn.SiLU):
                found.append(F.normalize(maps, dim=1))
        return found

    def __call__(self, images: Tensor, others: Tensor) -> Tensor:
        pairs = zip(self.layers(images), self.layers(others), strict=True)
        return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]).sum(0)
