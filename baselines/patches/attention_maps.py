"""Where in an image each token of its prompt acts: cross-attention of a level of the U-Net, recorded in sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from baselines.attention_scaling import check_projections
from baselines.cascade.attention import attention_map


@dataclass
class Maps:
    """Sum over layers and calls of each image's cross-attention, averaged over heads.

    Args:
        images: last rows of a call's batch that count: the half with the prompts.
        total: (images, queries, tokens) float32; None before the first call.
        count: layers and calls in it.
    """

    images: int
    total: Tensor | None = None
    count: int = 0

    def add(self, attention: Any, queries: Tensor, keys: Tensor) -> None:
        """Add `attention_map` of a layer's (N, tokens, heads d) queries and keys."""
        maps = attention_map(attention, queries[-self.images :], keys[-self.images :])
        self.total = maps if self.total is None else self.total + maps
        self.count += 1

    def mean(self, rows: int, columns: int) -> Tensor:
        """(images, tokens, rows, columns) on the CPU, with sum one over the tokens."""
        assert self.total is not None
        return (self.total / self.count).transpose(1, 2).unflatten(2, (rows, columns)).cpu()


def cross_attentions(unet: Any, level: int) -> list[Any]:
    """Cross-attention modules of the encoder's and the decoder's block at a level, 0 for the outermost.

    Raises:
        ValueError: there are none, or their projections are fused.
    """
    blocks = list(zip(unet.down_blocks, reversed(unet.up_blocks), strict=True))
    found = [
        [module for block in pair for name, module in block.named_modules() if name.endswith(".attn2")]
        for pair in blocks
    ]
    if not (0 <= level < len(found) and found[level]):
        levels = ", ".join(str(i) for i, modules in enumerate(found) if modules)
        raise ValueError(f"this U-Net has no cross-attention at attention_level={level}: choose one of {levels}")
    check_projections(found[level])
    return found[level]


@contextmanager
def recorded(maps: Maps, attentions: Sequence[Any]) -> Iterator[None]:
    """Add all calls of these cross-attention modules to the maps, whatever attention implementation they have."""
    projected: dict[Any, Tensor] = {}

    def keep(key: Any, module: Any, args: Any, output: Tensor) -> None:
        projected[key] = output

    def add(module: Any, args: Any, output: Any) -> None:
        maps.add(module, projected.pop((module, "q")), projected.pop((module, "k")))

    hooks = [attention.register_forward_hook(add) for attention in attentions]
    for attention in attentions:
        hooks.append(attention.to_q.register_forward_hook(partial(keep, (attention, "q"))))
        hooks.append(attention.to_k.register_forward_hook(partial(keep, (attention, "k"))))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
