"""Published scores beside ours: `published.csv`, in long form, each value with its source and its protocol.

Do not expect to match them closely: prompts, reference, number of images and settings differ.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

FILE = Path(__file__).parent / "published.csv"
METRICS = {"fid_r": "FID_r", "kid_r": "KID_r", "fid_b": "FID_b", "kid_b": "KID_b", "pfid_r": "pFID_r"}
KEYS = ["model", "method", "height", "width"]


def published_scores(path: Path = FILE) -> pd.DataFrame:
    """source, table, model, method, height, width, metric, value, protocol: one row for each value."""
    return pd.read_csv(path)


def published_beside(table: pd.DataFrame) -> str:
    """Markdown: ours and every published value for the same model, method and size, protocols in footnotes; empty if
    there is none.
    """
    sizes = table["size"].str.extract(r"(\d+)x(\d+)").astype(int)
    ours = table.assign(height=sizes[0], width=sizes[1])
    found = published_scores().merge(ours, on=KEYS)
    found = found[found["metric"].isin(METRICS)]
    if found.empty:
        return ""
    notes = {
        key: f"[{i}]" for i, key in enumerate(dict.fromkeys(zip(found["source"], found["protocol"], strict=True)), 1)
    }
    rows = [
        {
            "size": row["size"],
            "method": row["method"],
            "score": METRICS[row["metric"]],
            "ours": "" if pd.isna(row[row["metric"]]) else f"{row[row['metric']]:.3g}",
            "published": f"{row['value']:.3g} {notes[row['source'], row['protocol']]}",
        }
        for _, row in found.iterrows()
    ]
    footnotes = "\n".join(f"{mark} {source}: {protocol}" for (source, protocol), mark in notes.items())
    heading = "Published values of the same model, method and size, each under its own protocol:"
    return f"{heading}\n\n{pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)}\n\n{footnotes}"
