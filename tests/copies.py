"""Copies of models: three times as fast as `copy.deepcopy`, and as building them again."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedTokenizerBase

T = TypeVar("T")


class Writer(pickle.Pickler):
    """Writes a model without its tensors, of which it keeps copies, and without its tokenizers."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.originals: dict[int, Any] = {}
        self.kept: dict[int, Any] = {}

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, torch.Tensor | PreTrainedTokenizerBase):
            return None
        self.originals[id(value)] = value  # lives on, so that no other object gets its id
        self.kept[id(value)] = copied(value)
        return id(value)


class Reader(pickle.Unpickler):
    """Reads what a `Writer` wrote."""

    def __init__(self, file: io.BytesIO, kept: dict[int, Any]) -> None:
        super().__init__(file)
        self.kept, self.copies = kept, dict[int, Any]()

    def persistent_load(self, key: int) -> Any:
        if key not in self.copies:
            self.copies[key] = copied(self.kept[key])
        return self.copies[key]


def copied(value: Any) -> Any:
    """A copy of a tensor; a tokenizer itself."""
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(value.detach().clone(), value.requires_grad)
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def copier(model: T) -> Callable[[], T]:
    """A function that makes copies of a model or pipeline as it is now. Tokenizers are shared."""
    writer = Writer(file := io.BytesIO())
    writer.dump(model)
    return lambda: Reader(io.BytesIO(file.getvalue()), writer.kept).load()  # type: ignore[no-any-return]


def built_once(build: Callable[..., T]) -> Callable[..., T]:
    """The builder, which now builds once for each set of options and then copies; the global generator ends at 0."""
    made: dict[tuple[Any, ...], Callable[[], T]] = {}

    @wraps(build)
    def copy_of(folder: Path, *options: Any) -> T:
        if options not in made:
            made[options] = copier(build(folder, *options))
        torch.manual_seed(0)
        return made[options]()

    return copy_of
