"""Scores of finished runs as a table: CSV, Markdown, LaTeX and PNG. Rows that were not measured alike are refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.config import Cell

SCORES = {
    "fid_r": "FID_r ↓",
    "kid_r": "KID_r ↓",
    "fid_b": "FID_b ↓",
    "kid_b": "KID_b ↓",
    "pfid_r": "pFID_r ↓",
    "repetition": "repetition ↓",
}
SHARES = {"object_accuracy": "object ↑", "colour_accuracy": "colour ↑"}
COSTS = {"seconds_per_image": "s/image", "unet_evaluations_per_image": "U-Net evals"}
PER_SIZE = ("reference",)  # parts of a protocol that name the size and so differ between resolutions


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a run folder; ValueError if it was not scored yet."""
    path = folder / "metrics.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no metrics.json: run the cell first (python -m experiments.table1)")
    return json.loads(path.read_text(encoding="utf-8"))


def require_same_protocol(rows: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """ValueError naming two rows that differ in the number of pictures or in how they were scored."""

    def comparable(metrics: dict[str, Any]) -> dict[str, Any]:
        return {"n": metrics["n"]} | {k: v for k, v in metrics["protocol"].items() if k not in PER_SIZE}

    first_name, first = rows[0]
    for name, metrics in rows[1:]:
        for key, value in comparable(metrics).items():
            if value != comparable(first).get(key):
                raise ValueError(
                    f"{first_name} and {name} cannot share a table: {key} is {comparable(first).get(key)} and {value}"
                )


def collect(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row for each cell, from its metrics.json."""
    metrics = [(str(cell.folder), read_metrics(cell.folder)) for cell in cells]
    require_same_protocol(metrics)
    rows = []
    for cell, (_, scores) in zip(cells, metrics, strict=True):
        values = {k: scores.get(k) for name in SCORES for k in (name, f"{name}_se")}
        row: dict[str, Any] = {
            "model": cell.model.name,
            "resolution": cell.resolution,
            "size": f"{cell.height}x{cell.width}",
        }
        row |= {"method": cell.method_name, "n": scores["n"], **values, **{k: scores.get(k) for k in SHARES}}
        rows.append(row | {k: scores.get(k) for k in COSTS} | {"run": cell.folder.name})
    return pd.DataFrame(rows)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table as shown: score ± standard error, shares in percent."""
    shown = table[["resolution", "size", "method"]].copy()
    for name, title in SCORES.items():
        digits = 3 if name.startswith("kid") else 2
        if table[name].isna().all():
            continue
        pairs = zip(table[name], table[f"{name}_se"], strict=True)
        shown[title] = [f"{score:.{digits}f} ± {error:.{digits}f}" for score, error in pairs]
    for name, title in SHARES.items():
        shown[title] = ["" if pd.isna(v) else f"{100 * v:.0f}%" for v in table[name]]
    for name, digits in zip(COSTS, (1, 0), strict=True):
        shown[COSTS[name]] = ["" if pd.isna(v) else f"{v:.{digits}f}" for v in table[name]]
    return shown


def latex(shown: pd.DataFrame) -> str:
    """A booktabs tabular."""
    replace = {"±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "%": r"\%", "_r": r"$_r$", "_b": r"$_b$"}

    def cell(text: str) -> str:
        text = text.replace("attention_scaling", "attention scaling").replace("upscale_sd", "upscale (SD)")
        for symbol, code in replace.items():
            text = text.replace(symbol, code)
        return text

    lines = [r"\begin{tabular}{" + "l" * 3 + "r" * (len(shown.columns) - 3) + "}", r"\toprule"]
    lines.append(" & ".join(cell(str(c)) for c in shown.columns) + r" \\ \midrule")
    lines += [" & ".join(cell(str(value)) for value in row) + r" \\" for row in shown.itertuples(index=False)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def write_table(table: pd.DataFrame, folder: Path, name: str) -> str:
    """Write ``<name>.{csv,md,tex,png}``; returns the Markdown."""
    from experiments.plots import table_picture

    folder.mkdir(parents=True, exist_ok=True)
    shown = readable(table)
    n = int(table["n"].iloc[0])
    note = (
        f"{n} prompts a cell; ± standard error over prompts; _r: against real pictures, _b: base-size samples;\n"
        "pFID: of native-resolution crops (detail only, blind to composition);\n"
        "repetition: copies of the object beyond one; object, colour: pictures that show what was asked for;\n"
        "U-Net evals: guidance pairs an image, in units of the training size."
    )
    markdown = f"{shown.to_markdown(index=False, disable_numparse=True)}\n\n{note}\n"
    table.to_csv(folder / f"{name}.csv", index=False)
    (folder / f"{name}.md").write_text(markdown, encoding="utf-8")
    (folder / f"{name}.tex").write_text(latex(shown), encoding="utf-8")
    table_picture(shown, note, folder / f"{name}.png")
    return markdown
