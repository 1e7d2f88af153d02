"""Scores of finished runs as a table. Rows that were not measured under the same protocol are refused."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eval.comparisons import indistinguishable_from_best, minimum_detectable_difference
from eval.score import as_estimate
from eval.uncertainty import Estimate
from experiments.results.field.recipes import RECIPE, recipe_cells, recipe_note, recipe_of, varied
from experiments.results.reading import (
    CONTROLS,
    COSTS,
    FLOOR,
    SCORES,
    SHARES,
    RunRow,
    compared_groups,
    read_scores,
)
from experiments.scenes import SEARCH_RECORD

EXCESS = {"kid_r": "KID_r − real", "pkid_r": "pKID_r − real"}  # shown; the CSV has the excess of every score
PER_GROUP = ("n", "reference", "crops", "crop_reference", "prompts_sha256")  # may differ between `RunRow.group`s
LATEX = {"±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "−": r"$-$"}


def collect(rows: Sequence[RunRow]) -> pd.DataFrame:
    """One row for each run, from its scores; ValueError if two were not scored under the same protocol.

    Beside each score stand its standard error, its excess over the floor (the real images scored at the same
    resolution, if they are among the rows), whether it is indistinguishable from the best, and the smallest difference
    that the rows of its resolution could have shown.
    """
    scores = [read_scores(row.run.scores_file) for row in rows]
    require_same_protocol([(str(row.run.folder), row.group, found) for row, found in zip(rows, scores, strict=True)])
    lines = []
    for row, found in zip(rows, scores, strict=True):
        run = row.run
        values: dict[str, Any] = {"model": run.model.name, "resolution": run.resolution, "size": row.size}
        values |= {"method": run.method_name, "variant": row.variant, "n": found["n"]}
        values |= {k: found.get(k) for name in SCORES for k in (name, f"{name}_se")}
        values |= {k: found.get(k) for k in (*SHARES, *COSTS)} | recipe_of(run)
        lines.append(values | {"run": run.folder.name, "scores": f"scores/{run.scores_file.name}"})
    table = pd.DataFrame(lines)
    compared = {name: compare(table, scores, name) for name in SCORES}
    return pd.concat([table, *compared.values()], axis=1)


def compare(table: pd.DataFrame, scores: Sequence[dict[str, Any]], name: str) -> pd.DataFrame:
    """The columns of one score that compare rows of the same resolution and number of prompts."""
    found = pd.DataFrame(index=table.index)
    found[f"{name}_excess"] = found[f"{name}_excess_se"] = found[f"{name}_mdd"] = np.nan
    found[f"{name}_best"] = False
    for _, group in compared_groups(table):
        estimates = {i: as_estimate(scores[i], name) for i in group.index if f"{name}_jackknife" in scores[i]}
        floors = [i for i in estimates if table["method"][i] == FLOOR]
        for i in estimates if floors else []:
            excess = estimates[i].minus(estimates[floors[0]])
            found.loc[i, [f"{name}_excess", f"{name}_excess_se"]] = excess
        methods = {i: each for i, each in estimates.items() if table["method"][i] not in CONTROLS}
        found.loc[indistinguishable_from_best(methods), f"{name}_best"] = True
        if len(methods) > 1:
            found.loc[list(methods), f"{name}_mdd"] = detectable_difference(list(methods.values()))
    return found


def detectable_difference(estimates: Sequence[Estimate]) -> float:
    """The difference between two of these rows that would be found with 80% power, at their median standard error."""
    pairs = list(itertools.combinations(estimates, 2))
    errors = [one.minus(other)[1] for one, other in pairs]
    return minimum_detectable_difference(float(np.median(errors)), len(pairs), len(estimates[0].group_sizes))


def require_same_protocol(rows: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
    """ValueError naming two rows (name, group, scores) that differ in how they were scored. The number of images, the
    reference and the crops have to be the same within a group.
    """
    seen: dict[tuple[str, str], tuple[str, Any]] = {}
    for name, group, scores in rows:
        for key, value in {"n": scores["n"], **scores["protocol"]}.items():
            scope = group if key in PER_GROUP else ""
            other, expected = seen.setdefault((key, scope), (name, value))
            if value != expected:
                raise ValueError(f"{other} and {name} cannot share a table: {key} is {expected} and {value}")


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table as shown: score ± standard error, a star at the best, excess over the floor, shares in percent."""
    shown = pd.DataFrame({"resolution": table["resolution"] + " " + table["size"], "method": table["method"]})
    if table["variant"].any():
        shown["variant"] = table["variant"]
    for name, title in varied(table).items():
        shown[title] = recipe_cells(table, name)
    for name, title in SCORES.items():
        if table[name].isna().all():
            continue
        values = zip(table[name], table[f"{name}_se"], table[f"{name}_best"], strict=True)
        shown[title] = [with_error(score, se, name) + " *" * best for score, se, best in values]
        if name in EXCESS and table[f"{name}_excess"].notna().any():
            pairs = zip(table[f"{name}_excess"], table[f"{name}_excess_se"], strict=True)
            shown[EXCESS[name]] = [with_error(excess, se, name) for excess, se in pairs]
    for name, title in SHARES.items():
        shown[title] = ["" if pd.isna(v) else f"{100 * v:.0f}%" for v in table[name]]
    for name, digits in zip(COSTS, (1, 0), strict=True):
        shown[COSTS[name]] = ["" if pd.isna(v) else f"{v:.{digits}f}" for v in table[name]]
    return shown


def with_error(value: float, error: float, name: str) -> str:
    digits = 3 if "kid" in name else 2
    return "" if pd.isna(value) else f"{value:.{digits}f} ± {error:.{digits}f}"


def markdown(shown: pd.DataFrame) -> str:
    """The readable table as Markdown; what would end a cell or be HTML is escaped."""
    return shown.map(cell).rename(columns=cell).to_markdown(index=False, disable_numparse=True)


def cell(value: Any) -> Any:
    """A text on one line, in which nothing is markup of a table."""
    return re.sub(r"([|<])", r"\\\1", plain(value)) if isinstance(value, str) else value


def plain(text: str) -> str:
    """A text on one line, without what a terminal or an editor would obey."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def latex(shown: pd.DataFrame) -> str:
    """The readable table as a booktabs tabular (``\\usepackage{booktabs}``); underscores and percent signs escaped."""
    labels = sum(column in ("resolution", "method", "variant", *RECIPE.values()) for column in shown)
    columns = "l" * labels + "r" * (len(shown.columns) - labels)
    texts = shown.map(lambda value: plain(value) if isinstance(value, str) else value)
    styler = texts.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    text: str = styler.to_latex(hrules=True, column_format=columns)
    for symbol, command in LATEX.items():
        text = text.replace(symbol, command)
    return text


def note(table: pd.DataFrame) -> str:
    """What the columns mean, and what differences the table can resolve."""
    floor = "real: real images scored as if generated, the floor; − real: excess over it;\n"
    return (
        f"{prompt_counts(table)}; ± standard error over prompts; KID is unbiased, FID is not: compare it at equal n;\n"
        "_r: against real images, _b: base-size samples; p: of native-resolution crops, blind to composition;\n"
        f"{floor if (table['method'] == FLOOR).any() else ''}"
        "*: the best at its resolution, or not significantly worse (5%, Holm over all pairs of methods);\n"
        "repetition: copies of the object beyond one; object, colour: images that show what was prompted;\n"
        "U-Net evals: guidance pairs per image, in units of the training size.\n"
        + "\n".join(filter(None, (recipe_note(table), resolution_note(table), search_note(table))))
    )


def resolution_note(table: pd.DataFrame) -> str:
    """The smallest differences that would be found with 80% power."""
    parts = []
    for title, group in compared_groups(table):
        shown = [
            f"{SCORES[name].removesuffix(' ↓')} {group[f'{name}_mdd'].max():.2g}"
            for name in ("kid_r", "pkid_r", "repetition")
            if group[f"{name}_mdd"].notna().any()
        ]
        if shown:
            parts.append(f"{title}: {', '.join(shown)}")
    return f"Detectable with 80% power: differences of {'; '.join(parts)}." if parts else ""


def search_note(table: pd.DataFrame, record: Path = SEARCH_RECORD) -> str:
    """How many settings of the table's methods were tried on scenes, and what was better, from the record of
    `experiments.search`.
    """
    if set(table["model"]) != {"scenes"}:
        return ""
    tried = pd.read_csv(record, keep_default_na=False) if record.exists() else pd.DataFrame(columns=["method"])
    tried = tried[tried["method"].isin(table["method"])]
    if tried.empty:
        return "No settings were searched for scenes."
    counts = [
        f"{method} {', '.join(f'{n} at {size}' for size, n in group.groupby('resolution', sort=False).size().items())}"
        for method, group in tried.groupby("method", sort=False)
    ]
    better = tried[tried["chosen"] & (tried["candidate"] != "")]
    found = [f"{row.method} at {row.resolution} with {row.candidate}" for row in better.itertuples()]
    result = f"better: {'; '.join(found)}" if found else "none was significantly better than those configured"
    return f"Settings tried on other prompts and seeds: {'; '.join(counts)}; {result}."


def prompt_counts(table: pd.DataFrame) -> str:
    """How many prompts each run has, in words."""
    if table["n"].nunique() == 1:
        return f"{table['n'].iloc[0]} prompts per run"
    counts = table.groupby("resolution", sort=False)["n"].unique().items()
    return "prompts per run: " + ", ".join(f"{' and '.join(map(str, n))} at {resolution}" for resolution, n in counts)
