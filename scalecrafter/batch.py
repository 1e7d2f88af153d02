"""The arguments of a U-Net call, nested in tuples, lists and dicts: what they are, and changing their batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def batch_sizes(sample: Tensor) -> tuple[int, ...]:
    """First dimensions that arguments of a U-Net call with ``sample`` may have: that of ``sample``, and for a video
    (N, C, frames, H, W) also one for each of its frames, as AnimateDiff's prompts have.
    """
    return (len(sample), len(sample) * sample.shape[2]) if sample.ndim == 5 else (len(sample),)


def sample_and_timestep(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor | float]:
    """Of a U-Net call with these arguments, by position or name."""
    sample = kwargs["sample"] if "sample" in kwargs else args[0]
    return sample, kwargs["timestep"] if "timestep" in kwargs else args[1]


# By name: tensors with one row for each of something else, of which there may be as many as the batch has.
UNBATCHED = ("ip_adapter_masks",)


def map_batch(value: Any, batches: tuple[int, ...], change: Callable[[Tensor], Tensor]) -> Any:
    """Apply ``change`` to every tensor whose first dimension is in ``batches``, in tuples, lists and dicts too, but
    not under the keys of `UNBATCHED`.
    """
    if isinstance(value, Tensor):
        return change(value) if value.ndim and value.shape[0] in batches else value
    if isinstance(value, dict):
        return {k: item if k in UNBATCHED else map_batch(item, batches, change) for k, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(map_batch(item, batches, change) for item in value)
    return value
