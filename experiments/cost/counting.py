"""Counting: U-Net evaluations while they happen, and FLOPs and memory of calls on a pipeline without weights
(`experiments.setup.architecture`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import finalize

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from scalecrafter.pipeline import is_sdxl

ELSEWHERE = "meta"  # a device that stands for memory which does not count


@contextmanager
def counted_evaluations(unet: Any) -> Iterator[list[float]]:
    """Fill a list with the work of each U-Net call, in guidance pairs at the training size: a pair at four times the
    area counts four.
    """
    found: list[float] = []

    def count(module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        samples, _, rows, columns = args[0].shape
        found.append(evaluations(unet, samples, rows, columns))

    hook = unet.conv_in.register_forward_pre_hook(count)
    try:
        yield found
    finally:
        hook.remove()


def evaluations(unet: Any, samples: int, rows: int, columns: int) -> float:
    """The work of a call on so many latents of this size, in guidance pairs at the training size."""
    side = unet.config.sample_size  # of the latent
    trained = side**2 if isinstance(side, int) else side[0] * side[1]
    return samples / 2 * rows * columns / trained


def unet_inputs(unet: Any, samples: int, rows: int, columns: int, tokens: int) -> dict[str, Any]:
    """Arguments of a U-Net call except the timestep: noise, and zeros as conditions; sizes are the latent's."""
    like = {"device": unet.device, "dtype": unet.dtype}
    latents = torch.randn(samples, unet.config.in_channels, rows, columns, generator=torch.Generator().manual_seed(0))
    found: dict[str, Any] = {
        "sample": latents.to(**like).contiguous(memory_format=torch.channels_last),
        "encoder_hidden_states": torch.zeros(samples, tokens, unet.config.cross_attention_dim, **like),
    }
    if is_sdxl(unet):
        pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
        added = {"text_embeds": torch.zeros(samples, pooled, **like), "time_ids": torch.zeros(samples, 6, **like)}
        found["added_cond_kwargs"] = added
    return found


@dataclass(frozen=True)
class Cost:
    """Cost of one call: FLOPs (a multiply-add counts two), peak bytes of tensors beyond weights and arguments, without
    those that are ELSEWHERE, and U-Net evaluations.
    """

    flops: float
    memory: float
    evaluations: float


class Flops:
    """FLOPs of operations by torch's own formulas. Torch's mode that counts them also follows modules, and keeps parts
    of a gradient's graph, and with them tensors, that are gone without it.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.formulas = FlopCounterMode(display=False).flop_registry

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of an operation, which is counted, or the operations that it consists of."""
        formula = self.formulas.get(func._overloadpacket)
        if formula is None and func is not torch.ops.prim.device.default:
            with Inside(self):
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=result)
        return result


class Inside(TorchDispatchMode):
    """Count the FLOPs of the operations that another consists of."""

    def __init__(self, flops: Flops) -> None:
        super().__init__()
        self.flops = flops

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.flops.call(func, args, kwargs or {})


class HeldMemory(TorchDispatchMode):
    """Track how many bytes the results of operations hold, each until its last reference is gone; those that are
    ELSEWHERE do not count. Counts their `Flops` too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = Flops()
        self.held = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = self.flops.call(func, args, kwargs)
        made = [leaf for leaf in tensors_of((result,)) if leaf.device.type != ELSEWHERE]
        if made:
            before = {id(leaf.untyped_storage()) for leaf in tensors_of((args, *kwargs.values()))}
            for leaf in made:
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


def tensors_of(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors, also those in lists and tuples."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_of(value)


def cost_of(call: Callable[[], Any], unet: Any) -> Cost:
    """Cost of a call on tensors without content."""
    with counted_evaluations(unet) as counted, HeldMemory() as held:
        call()
    return Cost(held.flops.total, held.most, sum(counted))


def disk_needed(height: int, width: int, count: int) -> int:
    """Upper bound in bytes of ``count`` images as PNG, which is smaller than raw pixels."""
    return 3 * height * width * count
