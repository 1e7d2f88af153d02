"""LPIPS with VGG16's features (Zhang et al., 2018), the perceptual distance that SyncDiffusion was published with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"

# Two batches of images (N, 3, H, W) in [-1, 1] -> distances (N,), differentiable.
Distance = Callable[[Tensor, Tensor], Tensor]


def vgg_weights() -> tuple[str, Path]:
    """Where torchvision's VGG16 weights come from, and where they belong: the cache of torch.hub."""
    from torchvision.models import VGG16_Weights

    url = VGG16_Weights.IMAGENET1K_V1.url
    return url, Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


@cache
def lpips_vgg(device: torch.device) -> Distance:
    """LPIPS with VGG16 features from torchmetrics, for images (N, 3, H, W) in [-1, 1] -> (N,).

    Raises:
        ValueError: torchvision's VGG16 weights are damaged, or neither cached nor can be downloaded.
    """
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    url, path = vgg_weights()
    try:
        with tensors_only():
            net: Any = LearnedPerceptualImagePatchSimilarity(net_type="vgg").net.to(device)
    except OSError as error:
        raise ValueError(
            f"LPIPS needs the VGG16 weights {path.name} in {path.parent} ({error}): "
            f"download {url} on a machine with network access and copy the file there"
        ) from error
    except (RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} does not hold VGG16's weights ({reason}): remove it and fetch {url} again"
        ) from error

    def distance(images: Tensor, others: Tensor) -> Tensor:
        # The metric itself raises on values outside [-1, 1], which decoded predictions have; its network does not.
        distances: Tensor = net(images, others)
        return distances.flatten()

    return distance


@contextmanager
def tensors_only() -> Iterator[None]:
    """Let torch load nothing but tensors, which torchvision does not ask for: other pickles can execute code."""
    before = os.environ.get(TENSORS_ONLY)
    os.environ[TENSORS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[TENSORS_ONLY]
        else:
            os.environ[TENSORS_ONLY] = before
