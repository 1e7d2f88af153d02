"""The rows of all sources that may become prompts, and a tally of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.prompts.columns import SCHEMA
from experiments.prompts.denylist import Denylist
from experiments.prompts.filters import NEEDS, Filters, passing
from experiments.prompts.sources import Source
from experiments.prompts.text import LONGEST, clean_captions, is_utf8


def check_columns(source: Source, filters: Filters, denied: Denylist) -> None:
    """ValueError if a filter or the denylist asks for what the source does not have."""
    for name in filters.active():
        missing = [column for column in NEEDS[name] if column not in source.columns]
        if missing:
            raise ValueError(
                f"{source.path} has no column {' and '.join(missing)} for the filter {name}: leave the filter out, or "
                f"take a release that has it (used here: {', '.join(source.columns.values())})"
            )
    if denied.urls and "url" not in source.columns:
        raise ValueError(f"{source.path} has no column url for the {len(denied.urls)} urls of the denylist")


def usable_rows(
    sources: Sequence[Source], filters: Filters, denied: Denylist, tally: Counter[str], progress: bool
) -> Iterator[pa.RecordBatch]:
    """Rows with clean captions that pass everything; ``tally`` gets those ``read``, and those dropped by reason."""
    counts = [source.count for source in sources if source.count is not None]
    total = sum(counts) if len(counts) == len(sources) else None
    with tqdm(total=total, desc="prompts", unit="row", unit_scale=True, disable=not progress) as bar:
        for source in sources:
            for batch in source.read():
                read = len(batch.rows) + batch.broken.total()
                tally.update({"read": read} | batch.broken)
                yield drop_rows(batch.rows, filters, denied, tally)
                bar.update(read)


def drop_rows(batch: pa.RecordBatch, filters: Filters, denied: Denylist, tally: Counter[str]) -> pa.RecordBatch:
    """The rows that pass, captions clean; each of the others counts once, for the first reason against it."""
    left = np.ones(len(batch), bool)

    def keep(reason: str, verdict: NDArray[np.bool_]) -> None:
        tally[reason] += int(np.count_nonzero(left & ~verdict))
        np.logical_and(left, verdict, out=left)

    lengths = pc.fill_null(pc.binary_length(batch.column("prompt")), 0).to_numpy()
    keep("broken row", is_utf8(batch.column("prompt")) & is_utf8(batch.column("url")))
    keep("no caption", lengths > 0)
    keep(f"caption over {LONGEST} bytes", lengths <= LONGEST)
    for name, verdict in passing(batch, filters):
        keep(name, verdict)
    if denied.urls:
        urls = pa.array(sorted(denied.urls), pa.string())
        keep("denied url", ~pc.is_in(batch.column("url"), urls).to_numpy(zero_copy_only=False))
    rows = batch.filter(pa.array(left))
    rows = rows.set_column(SCHEMA.get_field_index("prompt"), SCHEMA.field("prompt"), clean_captions(rows["prompt"]))
    spoken = pc.greater(pc.binary_length(rows["prompt"]), 0)  # nothing but markup and spaces says nothing
    tally["no caption"] += len(rows) - pc.sum(spoken, min_count=0).as_py()
    return rows.filter(spoken)
