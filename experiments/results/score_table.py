"""Scores of finished runs as a table: CSV, Markdown, LaTeX and PNG. Rows that were not measured alike are refused.

`python -m experiments.results.score_table [experiment=NAME] [overrides]` makes the table of an experiment from whatever run folders
are there, without weights: a run is known by its recorded identity.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from eval.score import as_estimate
from eval.uncertainty import Estimate
from experiments.results.published import published_beside
from experiments.setup.command_line import command

if TYPE_CHECKING:  # reading a table needs no model
    from experiments.setup.config import Cell
    from experiments.setup.grid import Row

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


def read_scores(path: Path) -> dict[str, Any]:
    """Scores as `experiments.scoring.runs` wrote them; FileNotFoundError if the run was not scored in this way yet."""
    if not path.is_file():
        raise FileNotFoundError(f"no scores at {path}: run the cell first (python -m experiments.reproduce)")
    return json.loads(path.read_text(encoding="utf-8"))


def require_same_protocol(rows: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
    """ValueError naming two rows (name, resolution, metrics) that differ in how they were scored. The number of
    pictures, the reference and the positions of crops have to be alike within a resolution.
    """
    seen: dict[tuple[str, str], tuple[str, Any]] = {}
    for name, resolution, metrics in rows:
        for key, value in {"n": metrics["n"], **metrics["protocol"]}.items():
            scope = resolution if key in PER_SIZE else ""
            other, expected = seen.setdefault((key, scope), (name, value))
            if value != expected:
                raise ValueError(f"{other} and {name} cannot share a table: {key} is {expected} and {value}")


def collect(cells: Sequence[Row]) -> pd.DataFrame:
    """One row for each cell, from its scores."""
    metrics = [(str(row.cell.folder), row.cell.resolution, read_scores(row.cell.scores_file)) for row in cells]
    require_same_protocol(metrics)
    rows = []
    for row, (_, _, scores) in zip(cells, metrics, strict=True):
        cell = row.cell
        values: dict[str, Any] = {"model": cell.model.name, "resolution": cell.resolution, "size": row.size}
        values |= {"method": cell.method_name, "variant": row.variant, "n": scores["n"]}
        values |= {k: scores.get(k) for name in SCORES for k in (name, f"{name}_se")}
        values |= {k: scores.get(k) for k in (*SHARES, *COSTS)}
        rows.append(values | {"run": cell.folder.name, "scores": f"scores/{cell.scores_file.name}"})
    table = pd.DataFrame(rows)
    for name in SCORES:
        table[f"{name}_best"] = False
        for _, group in table.groupby("resolution"):
            found = {i: as_estimate(metrics[i][2], name) for i in group.index if f"{name}_jackknife" in metrics[i][2]}
            table.loc[among_the_best(found), f"{name}_best"] = True
    return table


def among_the_best(scores: dict[int, Estimate]) -> list[int]:
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


def latex(shown: pd.DataFrame) -> str:
    """A booktabs tabular."""
    replace = {"±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "%": r"\%", "_r": r"$_r$", "_b": r"$_b$"}

    def cell(text: str) -> str:
        text = text.replace("attention_scaling", "attention scaling").replace("upscale_sd", "upscale (SD)")
        for symbol, code in replace.items():
            text = text.replace(symbol, code)
        return text

    labels = 3 if "variant" in shown else 2
    lines = [r"\begin{tabular}{" + "l" * labels + "r" * (len(shown.columns) - labels) + "}", r"\toprule"]
    lines.append(" & ".join(cell(str(c)) for c in shown.columns) + r" \\ \midrule")
    lines += [" & ".join(cell(str(value)) for value in row) + r" \\" for row in shown.itertuples(index=False)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def write_table(table: pd.DataFrame, folder: Path, name: str) -> str:
    """Write ``<name>.{csv,md,tex,png}``; returns the Markdown."""
    from experiments.results.plots import table_picture

    folder.mkdir(parents=True, exist_ok=True)
    shown = readable(table)
    counts = {row.resolution: f"{row.n} prompts a cell" for row in table.itertuples()}
    alike = len(set(counts.values())) == 1
    count = next(iter(counts.values())) if alike else ", ".join(f"{r}: {text}" for r, text in counts.items())
    note = (
        f"{count}; ± standard error over prompts; _r: against real pictures, _b: base-size samples;\n"
        "*: the best at its resolution, or not told apart from it (paired difference within two standard errors);\n"
        "pFID: of native-resolution crops (detail only, blind to composition);\n"
        "repetition: copies of the object beyond one; object, colour: pictures that show what was asked for;\n"
        "U-Net evals: guidance pairs an image, in units of the training size."
    )
    markdown = f"{shown.to_markdown(index=False, disable_numparse=True)}\n\n{note}\n"
    published = published_beside(table)
    if published:
        markdown += f"\n{published}\n"
    table.to_csv(folder / f"{name}.csv", index=False)
    (folder / f"{name}.md").write_text(markdown, encoding="utf-8")
    (folder / f"{name}.tex").write_text(latex(shown), encoding="utf-8")
    table_picture(shown, note, folder / f"{name}.png")
    return markdown


def recorded(cell: Cell) -> Cell:
    """The cell as the run that fits it recorded it: with the digest of the weights and the precision, which are not
    known where there are no weights.

    Raises:
        FileNotFoundError: no run fits.
        ValueError: several do, from other weights or in another precision.
    """
    found = []
    stem = cell.folder.name.removesuffix(cell.digest[:8])
    for path in cell.runs.glob(f"{stem}*/config.yaml"):
        identity = yaml.safe_load(path.read_text(encoding="utf-8"))
        if without_weights(identity) == without_weights(cell.identity):
            found.append(replace(cell, identity=identity))
    if len(found) > 1:
        names = ", ".join(each.folder.name for each in found)
        raise ValueError(f"the same cell with other weights or in another precision: {names}; move all but one")
    if not found:
        raise FileNotFoundError(f"no run of {cell.method_name} at {cell.resolution} in {cell.runs}")
    return found[0]


def without_weights(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity as plain values, without what only the weights decide."""
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain | {"model": plain["model"]["name"]}


def rebuild(overrides: Sequence[str]) -> None:
    """Write and print the table of an experiment's finished cells; name those that are not finished."""
    from experiments.setup.architecture import load_architecture
    from experiments.setup.grid import read_experiment

    experiment = read_experiment(overrides)
    done, missing = [], []
    for row in experiment.rows(load_architecture):
        try:
            found = replace(row, cell=recorded(row.cell))
            read_scores(found.cell.scores_file)
        except FileNotFoundError as reason:
            missing.append(str(reason))
        else:
            done.append(found)
    if not done:
        raise ValueError(f"{experiment.name} has no finished cell: {missing[0]}")
    print(write_table(collect(done), experiment.results, experiment.name))
    for path in sorted(experiment.results.glob(f"{experiment.name}.*")):
        print(path)
    if missing:
        print(f"{len(missing)} of {len(missing) + len(done)} cells are not finished:", *missing, sep="\n  ")


if __name__ == "__main__":
    command(rebuild)
