"""Which rows of the metadata may become prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

NEEDS = {  # filter: columns
    "min_side": ("width", "height"),
    "max_aspect": ("width", "height"),
    "max_punsafe": ("punsafe",),
    "max_pwatermark": ("pwatermark",),
    "min_aesthetic": ("aesthetic",),
    "languages": ("language",),
}


@dataclass(frozen=True)
class Filters:
    """None and empty are off. A row whose value is unknown does not pass."""

    min_side: int | None = None  # pixels of the shorter side, at least
    max_aspect: float | None = None  # longer side / shorter side, at most
    max_punsafe: float | None = None  # probability, below
    max_pwatermark: float | None = None  # probability, below
    min_aesthetic: float | None = None  # score, at least
    languages: tuple[str, ...] = ()

    def active(self) -> dict[str, int | float | tuple[str, ...]]:
        """The filters that are on."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value not in (None, ())}


def passing(batch: pa.RecordBatch, filters: Filters) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Name and (N,) verdict of each filter that is on; every comparison with NaN, which is unknown, is false."""
    values = {
        name: batch.column(name).to_numpy(zero_copy_only=False)
        for name in ("width", "height", "punsafe", "pwatermark", "aesthetic")
    }
    shorter = np.minimum(values["width"], values["height"])
    if filters.min_side is not None:
        yield "min_side", shorter >= filters.min_side
    if filters.max_aspect is not None:
        yield "max_aspect", np.maximum(values["width"], values["height"]) <= filters.max_aspect * shorter
    if filters.max_punsafe is not None:
        yield "max_punsafe", values["punsafe"] < filters.max_punsafe
    if filters.max_pwatermark is not None:
        yield "max_pwatermark", values["pwatermark"] < filters.max_pwatermark
    if filters.min_aesthetic is not None:
        yield "min_aesthetic", values["aesthetic"] >= filters.min_aesthetic
    if filters.languages:
        known = pa.array([language.lower() for language in filters.languages], pa.string())
        yield "languages", pc.is_in(pc.ascii_lower(batch.column("language")), known).to_numpy(zero_copy_only=False)
