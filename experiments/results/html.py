"""The HTML report: tables, charts and images of finished experiments in one file that needs no network."""

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

from experiments.results.ablations import contrast_table, contrasts
from experiments.results.field.charts import charts_of
from experiments.results.galleries import Column, gallery_columns, shared_records
from experiments.results.html_table import headlines, table_view
from experiments.results.plots import ablation, score_title
from experiments.results.reading import read_description, read_run, read_scores, read_table, run_folders, score_files
from experiments.results.score_table import prompt_counts
from experiments.results.style import chart_svg, method_style
from scalecrafter.png import read_image

TEMPLATES = Path(__file__).with_name("templates")
PROMPTS = {True: 8, False: 4}  # shown of the main table, of an ablation
PIXELS = 24_000_000  # of all images together: 7 to 14 MB in the page, so that it can be shared
TITLES = {"table1": "The table"}
QUALITY = 92  # artefacts of methods must not drown in those of compression


def embed_image(path: Path, pixels: float) -> str:
    """A data URI of the image as WebP, downsampled to ``pixels`` if it has more."""
    image, stream = read_image(path), io.BytesIO()
    scale = min(1.0, math.sqrt(pixels / (image.width * image.height)))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(stream, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def gallery_view(resolution: str, columns: Sequence[Column], prompts: int) -> dict[str, Any]:
    """The images of one resolution: a row per prompt with (title, method, file) of each column, and which two columns
    to compare first.
    """
    titles = [column.title for column in columns]
    rows = []
    for records in shared_records(columns, prompts):
        tiles = [(c.title, c.method, c.folder / record.file) for c, record in zip(columns, records, strict=True)]
        rows.append({"prompt": records[0].prompt, "tiles": tiles})
    first = shared_records(columns[:1], 1)[0][0]
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
    """The charts of a table as SVG, with a text alternative."""
    if plot and "y" in plot:
        figures = {y: ablation(table, plot | {"y": [y]}) for y in plot["y"]}
        against = f" against {plot['x']}" if "x" in plot else " of each variant"
        texts = {y: f"{score_title(y)}{against}, with two standard errors." for y in plot["y"]}
    else:
        figures = charts_of(table, plot)
        frontier = (
            "Scores against seconds and base-size pairs per image, with two standard errors; lower left is better. "
        )
        texts = {key: frontier + "Faded methods are not on the dotted frontier." for key in figures}
        texts |= {
            "cost": "KID_r against seconds per image, with two standard errors; lower left is better. "
            "Methods above the dotted line are dominated by one on it.",
            "repetition": "Copies of the object beyond the one asked for, against the area of the image, with two "
            "standard errors.",
        }
    return [{"svg": page_svg(figure, f"{name}-{key}"), "text": texts[key]} for key, figure in figures.items()]


def page_svg(figure: Figure, name: str) -> Markup:
    return Markup(chart_svg(figure, name))


def section(path: Path, name: str, plot: dict[str, Any] | None, runs: Path, results: Path) -> dict[str, Any]:
    """Everything the page shows of the experiment in the file ``path``."""
    table = read_table(results / f"{name}.csv")
    main = not name.startswith("ablate_")
    description = read_description(path)
    found = contrasts(table, description.expected, runs)
    galleries = [
        gallery_view(resolution, columns, PROMPTS[main])
        for resolution, columns in gallery_columns(table, runs).items()
    ]
    return {
        "name": name,
        "title": TITLES.get(name) or name.replace("ablate_", "Ablation: ").replace("_", " "),
        "main": main,
        "text": description.text,
        "claim": description.claim,
        "contrasts": contrast_table(found).to_dict("split") if found else None,
        "models": sorted(set(table["model"])),
        "count": prompt_counts(table),
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
    """How the runs were sampled and scored, and the settings of each."""
    runs = {folder.name: read_run(folder) for folder in folders}
    sampling = [{k: v for k, v in run["identity"].items() if k not in ("method", "size")} for run in runs.values()]
    facts = {
        "Sampling": distinct(sampling),
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
    environment.globals["image"] = lambda path: embed_image(path, PIXELS / count)
    environment.globals["colour"] = lambda method: method_style(method)["color"]
    folders, scores = (dict.fromkeys(path for part in sections for path in part[key]) for key in ("runs", "scores"))
    return environment.get_template("report.html").render(
        sections=sections, missing=missing, made=date.today(), **provenance(folders, scores)
    )
