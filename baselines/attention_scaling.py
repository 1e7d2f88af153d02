"""Attention scaling (Jin et al., 2023, "Training-free diffusion model adaptation for variable-sized synthesis").

The entropy of self-attention grows with the number of tokens. Scaling its logits by sqrt(log_T N), for N tokens at
sampling and T in training, keeps it constant. Cross-attention has the same number of prompt tokens and is unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from baselines.method import UNetMethod
from scalecrafter.pipeline import training_size


def scaling_factor(tokens: int, area_ratio: float) -> float:
    """sqrt(log_T N) for N ``tokens`` at sampling and T = N / ``area_ratio`` in training.

    T is at least 2: a single token has no entropy to keep.
    """
    trained = max(2.0, tokens / area_ratio)
    return math.sqrt(math.log(tokens) / math.log(trained)) if tokens > 1 else 1.0


def check_projections(modules: Iterable[nn.Module]) -> None:
    """ValueError if one of these modules has no layers of its own for queries and keys."""
    if any(getattr(module, "fused_projections", False) for module in modules):
        raise ValueError("the pipeline's attention projections are fused: call pipe.unfuse_qkv_projections() first")


def self_attentions(unet: nn.Module) -> list[Any]:
    """Self-attention modules of a U-Net.

    Raises:
        ValueError: one normalises or fuses its queries, so scaling them would not scale the logits.
    """
    found: list[Any] = [m for name, m in unet.named_modules() if name.endswith(".attn1") and hasattr(m, "to_q")]
    check_projections(found)
    if any(getattr(module, "norm_q", None) is not None for module in found):
        raise ValueError("this U-Net normalises its queries: attention scaling is not defined for it")
    return found


class AttentionScaling(UNetMethod):
    """Scales the queries of every self-attention, and thereby its logits.

    This works with every attention implementation: torch's scaled-dot-product attention, sliced attention, xformers
    or an adapter's own processor.
    """

    @contextmanager
    def enable(self, pipe: Any, *, height: int, width: int) -> Iterator[None]:
        train_height, train_width = training_size(pipe)
        ratio = height * width / (train_height * train_width)

        def scale(module: nn.Module, args: tuple[Any, ...], queries: Tensor) -> Tensor:
            factor = scaling_factor(queries.shape[1], ratio)
            return queries if factor == 1 else queries * factor

        hooks = [attention.to_q.register_forward_hook(scale) for attention in self_attentions(pipe.unet)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        self_attentions(pipe.unet)
        return super().describe(pipe, height, width)
