"""The scenes classifier as a feature extractor for `eval`, a judge of image content and a perceptual distance."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.scenes import WEIGHTS
from experiments.scenes.model import BASE_PX
from experiments.scenes.training.autoencoder import to_tensor
from experiments.scenes.training.classifier import FACTORS, FEATURES, SceneClassifier

CLASSIFIER_FILE = "classifier.safetensors"


class SceneFeatures:
    """Maps images (N, H, W, 3) uint8 of any size to features (N, 64) float32, downsampling to 64x64 with antialiasing.

    Args:
        weights: folder of the scenes pipeline.

    Raises:
        FileNotFoundError: ``weights`` holds no classifier.
        ValueError: the classifier file is damaged.
    """

    name = "scenes"
    dim = FEATURES
    side = BASE_PX
    resizing = f"bicubic, antialiased, to {BASE_PX}x{BASE_PX}"

    def __init__(self, weights: Path = WEIGHTS) -> None:
        path = weights / CLASSIFIER_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"scenes classifier not found at {path}: restore it with git, or run `make train-scenes`"
            )
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.model = SceneClassifier()
        try:
            state = {name: value.float() for name, value in load_file(path).items()}
            self.model.load_state_dict(state)
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(
                f"scenes classifier at {path} is damaged: restore it with git, or run `make train-scenes`"
            ) from error
        self.model.eval()

    @staticmethod
    def prepare(images: NDArray[np.uint8]) -> Tensor:
        """Resize (N, H, W, 3) uint8 to (N, 3, 64, 64) float32 in [-1, 1]."""
        pixels = to_tensor(images)
        if pixels.shape[2:] != (BASE_PX, BASE_PX):
            pixels = F.interpolate(pixels, (BASE_PX, BASE_PX), mode="bicubic", antialias=True).clamp(-1, 1)
        return pixels

    @torch.no_grad()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: Tensor = self.model(self.prepare(images)) / self.model.scale
        return features.numpy()

    @torch.no_grad()
    def judge(self, images: NDArray[np.uint8]) -> tuple[dict[str, list[str]], NDArray[np.float32]]:
        """Classify images.

        Returns:
            The most likely value of each factor (object, colour, background) for each image, and the estimated number
            of copies of the object (N,) float32, at least 1. The classifier was trained with up to 16 copies.
        """
        logits = self.model.classify(self.prepare(images))
        copies = logits["copies"].squeeze(1).exp2().clamp(min=1).numpy()
        return {name: [values[i] for i in logits[name].argmax(1).tolist()] for name, values in FACTORS.items()}, copies

    def predict(self, images: NDArray[np.uint8]) -> dict[str, list[str]]:
        """The factors found by `judge`."""
        return self.judge(images)[0]

    def copies(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The number of copies estimated by `judge`."""
        return self.judge(images)[1]


class SceneDistance:
    """Perceptual distance in the manner of LPIPS (Zhang et al., 2018), on the layers of the scenes classifier.

    Squared differences of channel-normalised features, averaged over positions and summed over layers. Maps two
    batches (N, 3, H, W) in [-1, 1] to distances (N,); differentiable.
    """

    def __init__(self, weights: Path = WEIGHTS) -> None:
        features = SceneFeatures(weights)
        self.name = f"scenes {features.digest[:16]}"
        self.trunk = features.model.trunk.requires_grad_(False)

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
