"""What drawing asks of the hardware: U-Net calls that are counted while they happen, and floating-point operations and
memory of calls on a pipeline without weights (`experiments.setup.architecture`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import finalize

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@contextmanager
def counted_evaluations(unet: Any) -> Iterator[list[float]]:
    """Fills a list with the work of each U-Net call, in guidance pairs at the training size: a pair at four times the
    area counts four.
    """
    cells = unet.config.sample_size
    trained = cells**2 if isinstance(cells, int) else cells[0] * cells[1]
    found: list[float] = []

    def count(module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        samples, _, rows, columns = args[0].shape
        found.append(samples / 2 * rows * columns / trained)

    hook = unet.conv_in.register_forward_pre_hook(count)
    try:
        yield found
    finally:
        hook.remove()


def unet_inputs(unet: Any, samples: int, rows: int, columns: int, tokens: int) -> dict[str, Any]:
    """Arguments of a call but for the timestep: noise, and conditions that are zero."""
    like = {"device": unet.device, "dtype": unet.dtype}
    latents = torch.randn(samples, unet.config.in_channels, rows, columns, generator=torch.Generator().manual_seed(0))
    found: dict[str, Any] = {
        "sample": latents.to(**like).contiguous(memory_format=torch.channels_last),
        "encoder_hidden_states": torch.zeros(samples, tokens, unet.config.cross_attention_dim, **like),
    }
    if unet.config.addition_embed_type == "text_time":
        pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
        added = {"text_embeds": torch.zeros(samples, pooled, **like), "time_ids": torch.zeros(samples, 6, **like)}
        found["added_cond_kwargs"] = added
    return found


@dataclass(frozen=True)
class Cost:
    """Of one call: floating-point operations (a multiplication and an addition are two), the most bytes that tensors
    hold at any moment beyond weights and arguments, and the counted U-Net evaluations.
    """

    flops: float
    memory: float
    evaluations: float


class HeldMemory(TorchDispatchMode):
    """Follows how many bytes the results of operations hold, each until its last user is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        before = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if id(storage) not in self.known and id(storage) not in before:
                    self.add(storage)
        return result

    def add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        self.known.add(key)
        self.held += size
        self.most = max(self.most, self.held)
        finalize(storage, self.free, key, size)

    def free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.held -= size


def cost_of(call: Callable[[], Any], unet: Any) -> Cost:
    """What a call on tensors without content costs."""
    held, counter = HeldMemory(), FlopCounterMode(display=False)
    with counted_evaluations(unet) as evaluations, counter, held:
        call()
    return Cost(counter.get_total_flops(), held.most, sum(evaluations))
