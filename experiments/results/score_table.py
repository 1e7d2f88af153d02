"""Scores of finished runs as a table. Rows that were not measured under the same protocol are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from eval.score import as_estimate
from eval.uncertainty import Estimate
from experiments.results.reading import read_scores
from experiments.setup.grid import RunRow

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
PER_SIZE = ("n", "reference", "crops")  # what may differ between resolutions, which are not compared
LATEX = {"±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$"}


def collect(rows: Sequence[RunRow]) -> pd.DataFrame:
    """One row for each run, from its scores; ValueError if two were not scored under the same protocol."""
    scores = [read_scores(row.run.scores_file) for row in rows]
    require_same_protocol(
        [(str(row.run.folder), row.run.resolution, found) for row, found in zip(rows, scores, strict=True)]
    )
    lines = []
    for row, found in zip(rows, scores, strict=True):
        run = row.run
        values: dict[str, Any] = {"model": run.model.name, "resolution": run.resolution, "size": row.size}
        values |= {"method": run.method_name, "variant": row.variant, "n": found["n"]}
        values |= {k: found.get(k) for name in SCORES for k in (name, f"{name}_se")}
        values |= {k: found.get(k) for k in (*SHARES, *COSTS)}
        lines.append(values | {"run": run.folder.name, "scores": f"scores/{run.scores_file.name}"})
    table = pd.DataFrame(lines)
    for name in SCORES:
        table[f"{name}_best"] = False
        for _, group in table.groupby("resolution"):
            estimates = {i: as_estimate(scores[i], name) for i in group.index if f"{name}_jackknife" in scores[i]}
            table.loc[indistinguishable_from_best(estimates), f"{name}_best"] = True
    return table


def require_same_protocol(rows: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
    """ValueError naming two rows (name, resolution, scores) that differ in how they were scored. The number of images,
    the reference and the crops have to be the same within a resolution.
    """
    seen: dict[tuple[str, str], tuple[str, Any]] = {}
    for name, resolution, scores in rows:
        for key, value in {"n": scores["n"], **scores["protocol"]}.items():
            scope = resolution if key in PER_SIZE else ""
            other, expected = seen.setdefault((key, scope), (name, value))
            if value != expected:
                raise ValueError(f"{other} and {name} cannot share a table: {key} is {expected} and {value}")


def indistinguishable_from_best(scores: dict[int, Estimate]) -> list[int]:
    """The row with the lowest score, and those whose paired difference to it is within two standard errors."""
    if not scores:
        return []
    lowest = min(scores.values(), key=lambda estimate: estimate.value)
    differences = {row: estimate.minus(lowest) for row, estimate in scores.items()}
    return [row for row, (difference, error) in differences.items() if difference <= 2 * error]


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table as shown: score ± standard error, a star at the best, shares in percent."""
    shown = pd.DataFrame({"resolution": table["resolution"] + " " + table["size"], "method": table["method"]})
    if table["variant"].any():
        shown["variant"] = table["variant"]
    for name, title in SCORES.items():
        digits = 3 if name.startswith("kid") else 2
        if table[name].isna().all():
            continue
        values = zip(table[name], table[f"{name}_se"], table[f"{name}_best"], strict=True)
        shown[title] = [f"{score:.{digits}f} ± {se:.{digits}f}{' *' * best}" for score, se, best in values]
    for name, title in SHARES.items():
        shown[title] = ["" if pd.isna(v) else f"{100 * v:.0f}%" for v in table[name]]
    for name, digits in zip(COSTS, (1, 0), strict=True):
        shown[COSTS[name]] = ["" if pd.isna(v) else f"{v:.{digits}f}" for v in table[name]]
    return shown


def markdown(shown: pd.DataFrame) -> str:
    """The readable table as Markdown."""
    return shown.to_markdown(index=False, disable_numparse=True)


def latex(shown: pd.DataFrame) -> str:
    """The readable table as a booktabs tabular (``\\usepackage{booktabs}``); underscores and percent signs escaped."""
    labels = 3 if "variant" in shown else 2
    columns = "l" * labels + "r" * (len(shown.columns) - labels)
    styler = shown.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    text: str = styler.to_latex(hrules=True, column_format=columns)
    for symbol, command in LATEX.items():
        text = text.replace(symbol, command)
    return text


def note(table: pd.DataFrame) -> str:
    """What the columns mean."""
    return (
        f"{prompt_counts(table)}; ± standard error over prompts; _r: against real images, _b: base-size samples;\n"
        "*: the best at its resolution, or indistinguishable from it (paired difference within two standard errors);\n"
        "pFID: of native-resolution crops (detail only, blind to composition);\n"
        "repetition: copies of the object beyond one; object, colour: images that show what was prompted;\n"
        "U-Net evals: guidance pairs per image, in units of the training size."
    )


def prompt_counts(table: pd.DataFrame) -> str:
    """How many prompts each run has, in words."""
    counts = dict(zip(table["resolution"], table["n"], strict=True))
    if len(set(counts.values())) == 1:
        return f"{table['n'].iloc[0]} prompts per run"
    return "prompts per run: " + ", ".join(f"{n} at {resolution}" for resolution, n in counts.items())
