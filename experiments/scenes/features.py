"""The scenes classifier as a feature extractor for `eval`, and as a judge of what a picture shows."""

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
from experiments.scenes.autoencoder import to_tensor
from experiments.scenes.classifier import FACTORS, FEATURES, SceneClassifier
from experiments.scenes.model import BASE_PX

FILE = "classifier.safetensors"


class SceneFeatures:
    """(N, H, W, 3) uint8 pictures of any size -> (N, 64) float32 features; pictures are reduced to 64x64 with
    antialiasing first.

    Raises:
        FileNotFoundError: no classifier file in ``weights``.
        ValueError: the file is damaged.

    """

    name = "scenes"
    dim = FEATURES
    side = BASE_PX
    resizing = f"bicubic, antialiased, to {BASE_PX}x{BASE_PX}"

    def __init__(self, weights: Path = WEIGHTS) -> None:
        path = weights / FILE
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
        """(N, H, W, 3) uint8 -> (N, 3, 64, 64) float32 in [-1, 1]."""
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
        """What the classifier sees in each picture: the most likely value of each factor (object, colour, background),
        and (N,) how many copies of its object it holds, at least 1; trained up to 16.
        """
        logits = self.model.classify(self.prepare(images))
        copies = logits["copies"].squeeze(1).exp2().clamp(min=1).numpy()
        return {name: [values[i] for i in logits[name].argmax(1).tolist()] for name, values in FACTORS.items()}, copies

    def predict(self, images: NDArray[np.uint8]) -> dict[str, list[str]]:
        """The factors of `judge`."""
        return self.judge(images)[0]

    def copies(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The copies of `judge`."""
        return self.judge(images)[1]


class SceneDistance:
    """A perceptual distance in the manner of LPIPS: squared differences of the classifier's unit-length feature
    vectors, averaged over positions and summed over layers. (N, 3, H, W) twice, in [-1, 1] -> (N,), differentiable.
    """

    def __init__(self, weights: Path = WEIGHTS) -> None:
        features = SceneFeatures(weights)
        self.name = f"scenes {features.digest[:16]}"
        self.trunk = features.model.trunk.requires_grad_(False)

    def layers(self, pictures: Tensor) -> list[Tensor]:
        found, maps = [], pictures
        for module in self.trunk:
            maps = module(maps)
            if isinstance(module, nn.SiLU):
                found.append(F.normalize(maps, dim=1))
        return found

    def __call__(self, pictures: Tensor, others: Tensor) -> Tensor:
        pairs = zip(self.layers(pictures), self.layers(others), strict=True)
        return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]).sum(0)
