"""Published scores beside ours: `published.csv`, in long form, each value with its source and its protocol.

A value stands beside ours only if model, method, size, score, extractor and number of images agree. The others follow
in a table of their own that says why they cannot be compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

FILE = Path(__file__).parent / "published.csv"
METRICS = {"fid_r": "FID_r", "kid_r": "KID_r", "fid_b": "FID_b", "kid_b": "KID_b", "pfid_r": "pFID_r"}
KEYS = ["model", "method", "height", "width"]
EXTRACTOR = "inception"  # of every FID and KID in the file
UNKNOWN: Mapping[str, Any] = MappingProxyType({})
# "1000 prompts", "10k images", or "30k images at 1024x1024, 10k above"; not "50k random 1K crops"
COUNT = re.compile(r"\b(\d+)(k?) (?:LAION )?(?:images|prompts)\b(?: at (\d+)x(\d+), (\d+)k above)?")
COMPARABLE = "Published values of the same model, method, size, extractor and number of images:"
NOT_COMPARABLE = "Published values of the same model, method and size that cannot be compared with ours:"


def published_scores(path: Path = FILE) -> pd.DataFrame:
    """source, table, model, method, height, width, metric, value, protocol: one row for each value."""
    return pd.read_csv(path)


def published_count(protocol: str, height: int, width: int) -> int | None:
    """Number of images that a published value at this size in pixels comes from; None if its protocol does not say."""
    found = COUNT.search(protocol)
    if found is None:
        return None
    count, thousands, at_height, at_width, above = found.groups()
    if above and height * width > int(at_height) * int(at_width):
        return 1000 * int(above)
    return int(count) * (1000 if thousands else 1)


def obstacles(value: Mapping[str, Any], n: int, protocol: Mapping[str, Any]) -> list[str]:
    """Why a published value cannot be compared with ours, empty if it can.

    Args:
        value: a row of `published_scores`.
        n: number of images of ours.
        protocol: of our scores: extractor, resizing, crops.
    """
    found = []
    if protocol.get("extractor") != EXTRACTOR:
        found.append(f"extractor: {EXTRACTOR}, ours {protocol.get('extractor', 'unknown')}")
    count = published_count(value["protocol"], value["height"], value["width"])
    if count != n:
        found.append(f"n: {'not stated' if count is None else count}, ours {n}")
    resizing = str(protocol.get("resizing", "unknown"))
    if "clean-fid" in value["protocol"] and not resizing.startswith("clean"):
        found.append(f"resizing: clean, ours {resizing.partition(',')[0]}")
    if value["metric"].startswith("p"):  # no protocol states side, positions and number of its crops
        found.append(f"crops: not fully stated, ours {protocol.get('crops', 'unknown')}")
    return found


def published_beside(table: pd.DataFrame, protocol: Mapping[str, Any] = UNKNOWN) -> str:
    """Published values of the same models, methods and sizes, with ours.

    Args:
        table: our scores, with model, method, size ("HEIGHTxWIDTH"), n and a column for each of ``METRICS``.
        protocol: that of our scores, as scores/*.json record it.

    Returns:
        Markdown: a table of the values that can be compared, one of those that cannot, with the reasons, and the
        published protocols as footnotes. Empty if there are no such values.
    """
    sizes = table["size"].str.extract(r"(\d+)x(\d+)").astype(int)
    ours = table.assign(height=sizes[0], width=sizes[1])
    found = published_scores().merge(ours, on=KEYS)
    found = found[found["metric"].isin(METRICS)]
    sources = dict.fromkeys(zip(found["source"], found["protocol"], strict=True))
    marks = {key: f"[{i}]" for i, key in enumerate(sources, 1)}
    beside, apart = [], []
    for value in found.to_dict("records"):
        score = value[value["metric"]]
        row = {"size": value["size"], "method": value["method"], "score": METRICS[value["metric"]]}
        published = {"published": f"{value['value']:.3g} {marks[value['source'], value['protocol']]}"}
        if reasons := obstacles(value, value["n"], protocol):
            apart.append(row | published | {"not comparable": "; ".join(reasons)})
        else:
            beside.append(row | {"ours": "" if pd.isna(score) else f"{score:.3g}"} | published)
    parts = [section(COMPARABLE, beside), section(NOT_COMPARABLE, apart)]
    parts.append("\n".join(f"{mark} {source}: {text}" for (source, text), mark in marks.items()))
    return "\n\n".join(filter(None, parts))


def section(heading: str, rows: list[dict[str, str]]) -> str:
    """A heading and its table; empty without rows."""
    return f"{heading}\n\n{pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)}" if rows else ""
