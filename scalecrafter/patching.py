"""Replacing a method of a single instance for a while, and putting back exactly what was there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Forward = Callable[..., Any]


def no_hook(*args: Any) -> None:
    """A hook that does nothing."""


class OutsideGraphs:
    """A hook that is never part of a compiled graph, and that deep copies of its module do not have."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook = hook

    @torch.compiler.disable
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.hook(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        return no_hook


_MISSING = object()


@contextmanager
def replaced_attribute(obj: Any, name: str, value: Any) -> Iterator[None]:
    """Set ``obj.name`` to ``value``; on exit restore the instance's own attribute, or remove it if it had none."""
    own = vars(obj).get(name, _MISSING)
    setattr(obj, name, value)
    try:
        yield
    finally:
        if own is _MISSING:
            delattr(obj, name)
        else:
            setattr(obj, name, own)


@contextmanager
def replaced_forward(module: nn.Module, replacement: Callable[[Forward], Forward]) -> Iterator[None]:
    """Replace the innermost forward of ``module`` by ``replacement(innermost forward)``.

    On a module with an accelerate hook, ``forward`` runs the hook, which loads offloaded weights, and then calls
    ``_old_forward``. The latter is replaced there, so that the hook keeps running.
    """
    name = "_old_forward" if hasattr(module, "_hf_hook") and hasattr(module, "_old_forward") else "forward"
    with replaced_attribute(module, name, replacement(getattr(module, name))):
        yield
