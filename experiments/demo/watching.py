"""Watching a method sample, whichever it is: the work that it has done, and stopping it within a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from experiments.cost.counting import counted_evaluations


class Cancelled(Exception):
    """Somebody asked to stop. The pipeline is restored."""


@contextmanager
def watched(pipe: Any, asked_to_stop: Callable[[], bool]) -> Iterator[list[float]]:
    """Fill a list as `counted_evaluations` does, and ask before each block of the U-Net and the autoencoder.

    Raises:
        Cancelled: out of the sampling inside, before the next block after ``asked_to_stop`` has become true.
    """

    def check(module: nn.Module, args: Any) -> None:
        if asked_to_stop():
            raise Cancelled

    blocks = [
        module
        for part in (pipe.unet, pipe.vae)
        for module in part.modules()
        if type(module).__name__.endswith("Block2D")  # of resnets too: a block may take a second
    ]
    with ExitStack() as hooks:
        for block in blocks:
            hooks.callback(block.register_forward_pre_hook(check).remove)
        yield hooks.enter_context(counted_evaluations(pipe.unet))
