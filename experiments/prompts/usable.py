"""The rows of all sources that may become prompts, and a tally of the dropped ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.prompts.columns import SCHEMA
from experiments.prompts.filters import FILTER_COLUMNS, Denylist, Filters, apply_filters
from experiments.prompts.metadata import Source
from experiments.prompts.text import MAX_CAPTION_BYTES, clean_captions, is_utf8


def check_columns(source: Source, filters: Filters, denied: Denylist) -> None:
    """Raise ValueError if a filter or the denylist needs a column that the source lacks."""
    for name in filters.active():
        missing = [column for column in FILTER_COLUMNS[name] if column not in source.columns]
        if missing:
            raise ValueError(
                f"{source.path} has no column {' and '.join(missing)} for the filter {name}: drop the filter or use "
                f"a release with this column (columns used: {', '.join(source.columns.values())})"
            )
    if denied.urls and "url" not in source.columns:
        raise ValueError(f"{source.path} has no column url for the {len(denied.urls)} urls of the denylist")


def usable_rows(
    sources: Sequence[Source], filters: Filters, denied: Denylist, tally: Counter[str], progress: bool
) -> Iterator[pa.RecordBatch]:
    """Yield the rows that pass all checks, with clean captions.

    ``tally`` is updated with the number of rows ``read`` and of those dropped, by reason.
    """
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
    """Drop unusable rows and clean the captions of the others; a dropped row counts for the first reason only."""
    left = np.ones(len(batch), bool)

    def keep(reason: str, passed: NDArray[np.bool_]) -> None:
        tally[reason] += int(np.count_nonzero(left & ~passed))
        np.logical_and(left, passed, out=left)

    lengths = pc.fill_null(pc.binary_length(batch.column("prompt")), 0).to_numpy()
    keep("broken row", is_utf8(batch.column("prompt")) & is_utf8(batch.column("url")))
    keep("no caption", lengths > 0)
    keep(f"caption over {MAX_CAPTION_BYTES} bytes", lengths <= MAX_CAPTION_BYTES)
    for name, passed in apply_filters(batch, filters):
        keep(name, passed)
    if denied.urls:
        urls = pa.array(sorted(denied.urls), pa.string())
        keep("denied url", ~pc.is_in(batch.column("url"), urls).to_numpy(zero_copy_only=False))
    rows = batch.filter(pa.array(left))
    rows = rows.set_column(SCHEMA.get_field_index("prompt"), SCHEMA.field("prompt"), clean_captions(rows["prompt"]))
    nonempty = pc.greater(pc.binary_length(rows["prompt"]), 0)  # a caption may consist of markup and spaces only
    tally["no caption"] += len(rows) - pc.sum(nonempty, min_count=0).as_py()
    return rows.filter(nonempty)
