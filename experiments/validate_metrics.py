"""`python -m experiments.validate_metrics`: which score sees which damage, and whether copies are counted well.

Rendered scenes are damaged in known steps and scored (`experiments.scoring.validation`); copies are counted by two
independent routes (`experiments.scoring.copy_counts`), on rendered scenes and on the images of finished runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from eval.files import open_atomically, write_atomically
from eval.uncertainty import GROUPS, interval_of
from experiments.results.style import CHART
from experiments.scoring.copy_counts import Counted, agreement, count_copies, generated_images, rendered_with_copies
from experiments.scoring.feature_spaces import EXTRACTORS, build_extractor
from experiments.scoring.validation import COPIES, KINDS, WORSE, measure_responses, open_scorer, what_scores_see
from experiments.setup.command_line import command

# Differences below these are drawn on a linear scale, larger ones on a logarithmic one.
LINEAR = {"fid_r": 0.1, "pfid_r": 0.1, "kid_r": 0.01, "pkid_r": 0.01}
RENDERED = 144  # scenes with a known number of copies: each object, colour and background once
SHEET, COLUMNS, SIDE, LINE = 24, 6, 256, 22  # images on the contact sheet, per row; pixels of an image, of its text
KEY = ["image", "method", "resolution"]


def markdown(table: pd.DataFrame) -> str:
    return table.to_markdown(index=False, disable_numparse=True)


def response_table(responses: pd.DataFrame) -> pd.DataFrame:
    """One row for each corruption and step: every score's difference and, in brackets, its standard errors."""
    rows = []
    for (kind, step), part in responses[responses["step"] > 0].groupby(["corruption", "step"], sort=False):
        found = part.set_index("score")
        row = {"corruption": kind, "step": f"{step} ({found['strength'].iloc[0]})"}
        for name in WORSE:
            row[name] = f"{found.loc[name, 'difference']:+.3f} ({found.loc[name, 'errors']:+.1f})"
        rows.append(row)
    return pd.DataFrame(rows)


def response_figure(responses: pd.DataFrame, groups: int) -> Figure:
    """One panel for each score: difference to untouched images by step, with 95% intervals."""
    with matplotlib.rc_context(CHART):
        figure = Figure(figsize=(7.0, 3.8), layout="constrained")
        *panels, legend = figure.subplots(2, 4).ravel()
        for axes, name in zip(panels, WORSE, strict=True):
            draw_responses(axes, responses[responses["score"] == name], groups)
            axes.set_title(name)
            axes.set_xticks(range(len(COPIES) + 1))
            axes.set_yscale("symlog", linthresh=LINEAR.get(name, 0.05))
            axes.yaxis.set_major_formatter("{x:g}")
        for axes in panels[4:]:
            axes.set_xlabel("step")
        for axes in (panels[0], panels[4]):
            axes.set_ylabel("difference to untouched")
        legend.axis("off")
        legend.legend(*panels[0].get_legend_handles_labels(), loc="center")
    return figure


def draw_responses(axes: Axes, responses: pd.DataFrame, groups: int) -> None:
    """A line for each corruption."""
    colours = *matplotlib.colormaps["tab10"].colors, (0.1, 0.1, 0.1)  # type: ignore[attr-defined]
    for kind, colour in zip(KINDS, colours, strict=True):
        rows = responses[responses["corruption"] == kind].sort_values("step")
        pairs = zip(rows["difference"], rows["difference_se"], strict=True)
        low, high = np.transpose([interval_of(value, se, groups) for value, se in pairs])
        axes.plot(rows["step"], rows["difference"], color=colour, label=kind, marker=".", markersize=3)
        axes.fill_between(rows["step"], low, high, color=colour, alpha=0.18, linewidth=0)


def contact_sheet(images: Sequence[Counted], counts: pd.DataFrame) -> Image.Image:
    """Up to 24 images, evenly chosen, each with its counts below it."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(SHEET, len(images))).round().astype(int))
    font = ImageFont.load_default(14)
    rows = -(-len(chosen) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (SIDE + 6), rows * (SIDE + 2 * LINE)), "white")
    pen = ImageDraw.Draw(sheet)
    for position, index in enumerate(chosen):
        row, column = divmod(position, COLUMNS)
        left, top = column * (SIDE + 6), row * (SIDE + 2 * LINE)
        shown = Image.fromarray(images[index].image.pixels()).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        sheet.paste(shown, (left, top))
        found = counts.iloc[index]
        known = " ".join(f"{name} {found[name]:.0f}" for name in ("true", "hand") if pd.notna(found.get(name)))
        text = f"counter {found['counter']:.1f}  components {found['components']}  {known}"
        pen.text((left, top + SIDE + 2), f"{found['method']} {found['image']}", fill="black", font=font)
        pen.text((left, top + SIDE + LINE - 2), text, fill="black", font=font)
    return sheet


def validate_scores(options: argparse.Namespace) -> str:
    """Measure and write the responses; returns them as Markdown."""
    extractor = build_extractor(options.features, options.weights)
    scorer = open_scorer(extractor, options.images, options.size, options.crops, options.cache)
    responses = measure_responses(scorer)
    write_atomically(options.results / "metric_response.csv", responses.to_csv(index=False))
    figure = response_figure(responses, min(GROUPS, options.images))
    with open_atomically(options.results / "metric_response.png") as file:
        figure.savefig(file, format="png", dpi=200, facecolor="white")
    about = (
        f"{options.images} scenes at {options.size}x{options.size}, {extractor.name} features, crops {options.crops}"
    )
    seen = markdown(what_scores_see(responses).reset_index())
    title = "Difference to untouched images (standard errors):"
    return "\n\n".join([about, seen, title, markdown(response_table(responses))])


def validate_counts(options: argparse.Namespace) -> str:
    """Count copies by both routes and write counts and contact sheet; returns the agreement as Markdown."""
    rendered = count_copies(rendered_with_copies(RENDERED, options.size))
    tables = [agreement(rendered, [("counter", "true"), ("components", "true")])]
    images = generated_images(options.runs) if options.runs else rendered_with_copies(SHEET, options.size)
    counts = count_copies(images)
    pairs = [("counter", "components")]
    if options.runs and options.hand_counts:
        hand = pd.read_csv(options.hand_counts, dtype={"image": str})
        counts = counts.merge(hand[[*KEY, "hand"]], on=KEY, how="left")
        pairs += [("counter", "hand"), ("components", "hand")]
    if options.runs:
        tables.append(agreement(counts, pairs))
    write_atomically(options.results / "copy_counts.csv", counts.to_csv(index=False))
    with open_atomically(options.results / "copy_counts.png") as file:
        contact_sheet(images, counts).save(file, format="PNG")
    return f"Copies in an image:\n\n{markdown(pd.concat(tables).round(2))}"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.validate_metrics",
        description="Which score sees which damage to real images, and whether copies are counted well.",
    )
    add = parser.add_argument
    add("--size", type=int, default=256, metavar="PIXELS", help="height and width of the scenes (default: 256)")
    add("--images", type=int, default=RENDERED, metavar="N", help=f"scenes that are damaged (default: {RENDERED})")
    add("--features", choices=EXTRACTORS, default="scenes", help="of FID and KID (default: scenes)")
    add("--weights", metavar="PATH", help="weights file of inception; folder or hub id of dinov2 and clip")
    add("--crops", default="64:4", metavar="SCHEME", help="of pfid_r and pkid_r (default: 64:4)")
    add("--runs", type=Path, metavar="DIR", help="also count copies in the images of these runs of the scenes model")
    add("--hand-counts", type=Path, metavar="CSV", help="counts by a person: image, method, resolution, hand")
    add("--counts-only", action="store_true", help="only validate the counts of copies")
    add("--results", type=Path, default=Path("results"), metavar="DIR")
    add("--cache", type=Path, default=Path("runs/.cache/features"), metavar="DIR")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Print the tables and write them, with a figure and a contact sheet, to the results folder."""
    options = build_parser().parse_args(arguments)
    parts = [] if options.counts_only else [validate_scores(options)]
    text = "\n\n".join([*parts, validate_counts(options)]) + "\n"
    path = options.results / ("copy_counts.md" if options.counts_only else "metric_response.md")
    write_atomically(path, text)
    print(f"\n{text}\n{path}")


if __name__ == "__main__":
    command(main)
