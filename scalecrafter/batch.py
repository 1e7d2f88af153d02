"""Change the batch of a U-Net call, through arguments nested in tuples, lists and dicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def map_batch(value: Any, batch: int, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply ``change`` to every tensor whose first dimension is ``batch``, also inside tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return change(value) if value.ndim and value.shape[0] == batch else value
    if isinstance(value, dict):
        return {key: map_batch(item, batch, change) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(map_batch(item, batch, change) for item in value)
    return value
