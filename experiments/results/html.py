"""`python -m experiments.results.html [overrides]`: tables, charts and pictures of all finished experiments in one file,
``<results>/report.html``, which needs no network and no other file. It reads results and run folders, and draws
nothing.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from experiments.results.plots import ablation, charts, score_title
from experiments.results.reading import (
    Column,
    gallery_columns,
    read_description,
    read_run,
    read_table,
    row_labels,
    run_folders,
    score_files,
    shared_records,
)
from experiments.results.score_table import COSTS, SCORES, SHARES, read_scores
from experiments.results.style import chart_svg, method_style
from experiments.sampling.manifest import write_atomically
from experiments.setup.command_line import command
from experiments.setup.config import CONF, compose_config
from experiments.setup.grid import read_experiment

TEMPLATES = Path(__file__).with_name("templates")
PROMPTS = {True: 8, False: 4}  # shown of the main table, of an ablation
PIXELS = 24_000_000  # of all pictures together: 7 to 14 MB in the page, so that it can be sent around
TITLES = {"table1": "The table"}
HEADLINES = {"fid_r": "FID_r", "repetition": "copies beyond one", "seconds_per_image": "seconds per image"}
QUALITY = 92  # artefacts of methods must not drown in those of compression

Cells = dict[str, dict[str, Any]]


def embed_picture(path: Path, pixels: float) -> str:
    """A data URI of the picture as WebP, reduced to ``pixels`` if it has more."""
    with Image.open(path) as picture:
        scale = min(1.0, math.sqrt(pixels / (picture.width * picture.height)))
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        stream = io.BytesIO()
        picture.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(stream, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def number(value: float, digits: int, error: float | None = None, best: bool = False) -> dict[str, Any]:
    """A cell of a table: what to sort by (empty: nothing was measured), what to show."""
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
    """The numbers of one row, by the name of their column."""
    cells = {}
    for name in names:
        if name in SCORES:
            digits = 3 if name.startswith("kid") else 2
            cells[name] = number(row[name], digits, row[f"{name}_se"], row[f"{name}_best"])
        elif name in SHARES:
            cells[name] = number(row[name], 2)
            cells[name]["text"] = f"{row[name]:.0%}" if cells[name]["value"] else "–"
        else:
            cells[name] = number(row[name], 1 if name == "seconds_per_image" else 0)
    return cells


def table_view(table: pd.DataFrame) -> dict[str, Any]:
    """Titles of the columns that hold anything, and for each resolution its rows."""
    titles = {name: title for name, title in (SCORES | SHARES | COSTS).items() if table[name].notna().any()}
    groups = []
    for resolution, group in table.assign(label=row_labels(table)).groupby("resolution", sort=False):
        rows = [
            {"label": row["label"], "method": row["method"], "cells": table_cells(row, titles)}
            for row in group.to_dict("records")
        ]
        groups.append({"title": f"{resolution}, {group['size'].iloc[0]} pixels", "rows": rows})
    return {"titles": titles, "groups": groups, "label": "variant" if table["variant"].any() else "method"}


def headlines(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Direct inference against ScaleCrafter at each resolution that has both."""
    found = []
    for resolution, group in table.groupby("resolution", sort=False):
        rows = {row["method"]: row for row in group.to_dict("records")}
        if {"direct", "scalecrafter"} <= rows.keys():
            names = [name for name in HEADLINES if group[name].notna().all()]
            before, after = (table_cells(rows[method], names) for method in ("direct", "scalecrafter"))
            values = [(HEADLINES[name], before[name], after[name]) for name in names]
            found.append({"title": f"{resolution}, {group['size'].iloc[0]} pixels", "values": values})
    return found


def gallery_view(resolution: str, columns: Sequence[Column], methods: Sequence[str], prompts: int) -> dict[str, Any]:
    """The pictures of one resolution: a row for each prompt, in it (title, method, file) of each column; and which two
    columns to compare first.
    """
    titles, folders = zip(*columns, strict=True)
    rows = []
    for records in shared_records(folders, prompts):
        files = [folder / record.file for folder, record in zip(folders, records, strict=True)]
        rows.append({"prompt": records[0].prompt, "tiles": list(zip(titles, methods, files, strict=True))})
    first = shared_records(folders[:1], 1)[0][0]
    return {
        "resolution": resolution,
        "height": first.height,
        "width": first.width,
        "titles": titles,
        "rows": rows,
        "left": titles.index("direct") if "direct" in titles else 0,
        "right": titles.index("scalecrafter") if "scalecrafter" in titles else len(titles) - 1,
    }


def chart_views(name: str, table: pd.DataFrame, plot: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The charts of a table as SVG, with a sentence for those who do not see them."""
    if plot:
        figures = {y: ablation(table, plot | {"y": [y]}) for y in plot["y"]}
        against = f" against {plot['x']}" if "x" in plot else " of each variant"
        texts = {y: f"{score_title(y)}{against}, with two standard errors." for y in plot["y"]}
    else:
        figures = charts(table, None)
        texts = {
            "cost": "FID_r against seconds per image, with two standard errors; cheap and good is at the lower left. "
            "Whatever lies above the dotted line is beaten in both by a method on it.",
            "repetition": "Copies of the object beyond the one asked for, against the area of the picture, with two "
            "standard errors.",
        }
    return [{"svg": page_svg(figure, f"{name}-{key}"), "text": texts[key]} for key, figure in figures.items()]


def page_svg(figure: Figure, name: str) -> Markup:
    return Markup(chart_svg(figure, name))


def prompt_count(table: pd.DataFrame) -> str:
    """How many prompts each cell has, in words."""
    counts = dict(zip(table["resolution"], table["n"], strict=True))
    if len(set(counts.values())) == 1:
        return f"{table['n'].iloc[0]} prompts a cell"
    return "prompts a cell: " + ", ".join(f"{n} at {resolution}" for resolution, n in counts.items())


def section(path: Path, name: str, plot: dict[str, Any] | None, runs: Path, results: Path) -> dict[str, Any]:
    """Everything the page shows of the experiment in the file ``path``."""
    table = read_table(results / f"{name}.csv")
    main = not name.startswith("ablate_")
    text, claim, found = read_description(path)
    methods = {resolution: list(group["method"]) for resolution, group in table.groupby("resolution", sort=False)}
    galleries = [
        gallery_view(resolution, columns, methods[resolution], PROMPTS[main])
        for resolution, columns in gallery_columns(table, runs).items()
    ]
    return {
        "name": name,
        "title": TITLES.get(name) or name.replace("ablate_", "Ablation: ").replace("_", " "),
        "main": main,
        "text": text,
        "claim": claim,
        "found": found,
        "models": sorted(set(table["model"])),
        "count": prompt_count(table),
        "table": table_view(table),
        "headlines": headlines(table) if main else [],
        "charts": chart_views(name, table, plot),
        "galleries": galleries,
        "runs": run_folders(table, runs),
        "scores": score_files(table, runs),
    }


def flat(mapping: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings with dotted names."""
    found: dict[str, str] = {}
    for key, value in mapping.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = str(value)
    return found


def distinct(mappings: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """All values of each setting, mostly one."""
    found: dict[str, dict[str, None]] = {}
    for mapping in mappings:
        for key, value in flat(mapping).items():
            found.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in found.items()}


def provenance(folders: Iterable[Path], scores: Iterable[Path]) -> dict[str, Any]:
    """How the runs were drawn and scored, and the settings of each."""
    runs = {folder.name: read_run(folder) for folder in folders}
    drawing = [{k: v for k, v in run["identity"].items() if k not in ("method", "size")} for run in runs.values()]
    facts = {
        "Drawing": distinct(drawing),
        "Scoring": distinct(read_scores(path)["protocol"] for path in scores),
        "Environment": distinct(run["environment"] for run in runs.values()),
    }
    settings = {name: yaml.safe_dump(run["identity"]["method"], sort_keys=True) for name, run in runs.items()}
    return {"facts": facts, "settings": settings}


def render(sections: Sequence[dict[str, Any]], missing: Sequence[str]) -> str:
    """The page; ``missing`` are the names of experiments without results."""
    count = sum(len(row["tiles"]) for part in sections for shown in part["galleries"] for row in shown["rows"])
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["picture"] = lambda path: embed_picture(path, PIXELS / count)
    environment.globals["colour"] = lambda method: method_style(method)["color"]
    folders, scores = (dict.fromkeys(path for part in sections for path in part[key]) for key in ("runs", "scores"))
    return environment.get_template("report.html").render(
        sections=sections, missing=missing, made=date.today(), **provenance(folders, scores)
    )


def report(overrides: Sequence[str]) -> None:
    """Write the page of all experiments in conf/experiment that have results, the main table first."""
    sections, missing = [], []
    results = Path(compose_config(overrides).paths.results)
    files = sorted((CONF / "experiment").glob("*.yaml"))
    for path in sorted(files, key=lambda path: (path.stem.startswith("ablate_"), path.stem not in TITLES)):
        experiment = read_experiment([*overrides, f"experiment={path.stem}"])
        if (results / f"{experiment.name}.csv").is_file():
            sections.append(section(path, experiment.name, experiment.plot, experiment.runs, results))
        else:
            missing.append(path.stem)
    if not sections:
        raise ValueError(f"no finished table in {results}: run make reproduce-table first, or set paths.results")
    page = results / "report.html"
    write_atomically(page, render(sections, missing).encode())
    print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    command(report)
