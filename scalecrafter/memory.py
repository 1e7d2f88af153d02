"""Errors that say that memory is full."""

from __future__ import annotations

import torch
from accelerate.utils.memory import should_reduce_batch_size


def is_out_of_memory(error: Exception) -> bool:
    """Whether a GPU, or main memory, had no room: libraries raise RuntimeError with many messages."""
    return (
        isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
        or should_reduce_batch_size(error)
        or "ALLOC_FAILED" in str(error)  # cuBLAS and cuDNN
    )
