"""Tables of the HTML report as plain values: what each cell shows, and what it is sorted by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from experiments.results.field.recipes import RECIPE, recipe_cell, varied
from experiments.results.reading import COSTS, SCORES, SHARES, compared_groups, row_labels

HEADLINES = {"kid_r": "KID_r", "repetition": "copies beyond one", "seconds_per_image": "seconds per image"}

Cells = dict[str, dict[str, Any]]


def number(value: float, digits: int, error: float | None = None, best: bool = False) -> dict[str, Any]:
    """A cell: the value to sort by (empty: not measured) and the text to show."""
    if pd.isna(value):
        return {"value": "", "text": "–", "error": "", "best": False}
    spread = "" if error is None or pd.isna(error) else f"± {error:.{digits}f}"
    return {
        "value": repr(float(value)),
        "text": f"{value:.{digits}f}".replace("-", "−"),
        "error": spread,
        "best": bool(best),
    }


def table_cells(row: dict[str, Any], names: Iterable[str]) -> Cells:
    """The cells of one row by column."""
    cells = {}
    for name in names:
        if name in SCORES:
            digits = 3 if name.startswith(("kid", "pkid")) else 2
            cells[name] = number(row[name], digits, row[f"{name}_se"], row[f"{name}_best"])
        elif name in SHARES:
            cells[name] = number(row[name], 2)
            cells[name]["text"] = f"{row[name]:.0%}" if cells[name]["value"] else "–"
        elif name in RECIPE:
            text = recipe_cell(row["method"], row[name])
            cells[name] = {"value": text, "text": text, "error": "", "best": False}
        else:
            cells[name] = number(row[name], 1 if name == "seconds_per_image" else 0)
    return cells


def table_view(table: pd.DataFrame) -> dict[str, Any]:
    """Titles of the columns that are not empty, and the rows that are compared with each other."""
    measured = {name: title for name, title in (SCORES | SHARES | COSTS).items() if table[name].notna().any()}
    titles = varied(table) | measured
    groups = []
    for title, group in compared_groups(table.assign(label=row_labels(table))):
        rows = [
            {"label": row["label"], "method": row["method"], "cells": table_cells(row, titles)}
            for row in group.to_dict("records")
        ]
        groups.append({"title": f"{title}, {group['size'].iloc[0]} pixels", "rows": rows})
    return {"titles": titles, "groups": groups, "label": "variant" if table["variant"].any() else "method"}


def headlines(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Direct inference against ScaleCrafter at each resolution that has both."""
    found = []
    for title, group in compared_groups(table):
        rows = {row["method"]: row for row in group.to_dict("records")}
        if {"direct", "scalecrafter"} <= rows.keys():
            names = [name for name in HEADLINES if group[name].notna().all()]
            before, after = (table_cells(rows[method], names) for method in ("direct", "scalecrafter"))
            values = [(HEADLINES[name], before[name], after[name]) for name in names]
            found.append({"title": f"{title}, {group['size'].iloc[0]} pixels", "values": values})
    return found
