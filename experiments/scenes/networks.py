"""What the three scoring networks share: a convolution block and their files in the folder of the scenes pipeline.

Each answers one question and is not trained on what it must not know: *structure* (what is where in the whole image),
*detail* (how a crop is damaged, whatever it shows) and *repetition* (how many objects there are).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from eval.files import write_atomically

Network = TypeVar("Network", bound=nn.Module)
STRUCTURE_FILE, DETAIL_FILE, REPETITION_FILE = "structure.safetensors", "detail.safetensors", "repetition.safetensors"
GROUPS = 8  # of every group normalisation
BATCH_PIXELS = 2**21  # analysed at a time at most: 128 images of 128x128


def convolution(before: int, after: int, stride: int = 1, kernel: int = 3, norm: bool = True) -> list[nn.Module]:
    """Convolution with "same" padding, group normalisation unless ``norm`` is false, and SiLU."""
    layers: list[nn.Module] = [nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2)]
    return [*layers, *([nn.GroupNorm(GROUPS, after)] if norm else []), nn.SiLU()]


def batches(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Consecutive parts of (N, H, W, 3) images that fit into memory."""
    step = max(1, BATCH_PIXELS // (images.shape[1] * images.shape[2]))
    return (images[start : start + step] for start in range(0, len(images), step))


def save_network(network: nn.Module, path: Path) -> None:
    """Write the weights in half precision."""
    state: dict[str, Tensor] = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    write_atomically(path, save(state))


def load_network(network: nn.Module, path: Path) -> str:
    """Load weights of `save_network` in place, in float32 and eval mode, without gradients.

    Returns:
        SHA-256 of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or holds another network.
    """
    advice = "restore it with git, or run `make train-scenes`"
    if not path.is_file():
        raise FileNotFoundError(f"scenes network not found at {path}: {advice}")
    try:
        network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except (SafetensorError, RuntimeError, ValueError, LookupError, OSError) as error:
        raise ValueError(f"scenes network at {path} is damaged: {advice}") from error
    network.eval().requires_grad_(False)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def loaded(kind: Callable[[], Network], path: Path) -> tuple[Network, str]:
    """The network of a file, and the file's SHA-256: the same object for all who ask, not to be changed.

    Raises:
        FileNotFoundError, ValueError: as `load_network`.
    """
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)
    return _loaded(kind, path, stamp, torch.get_default_device())


@lru_cache(maxsize=8)
def _loaded(
    kind: Callable[[], Network], path: Path, stamp: tuple[int, int], device: torch.device
) -> tuple[Network, str]:
    network = kind()
    return network, load_network(network, path)


def root_mean_square(features: Tensor) -> Tensor:
    """Scalar. Features divided by it give FID and KID of the usual order of magnitude."""
    return torch.sqrt(features.square().mean())
