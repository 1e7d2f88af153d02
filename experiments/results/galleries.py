"""Grids of images: prompts by methods with the same seeds, whole, and the same region of each enlarged. Which runs and
prompts they show, the HTML report asks here too.
"""

from __future__ import annotations

import io
import math
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from PIL import Image, ImageDraw, ImageFont
from PIL.Image import Image as PILImage

from eval.files import open_atomically
from experiments.results.reading import row_labels, run_folders, without_corruptions
from experiments.results.score_table import plain
from experiments.sampling.manifest import Record, read_records
from scalecrafter.png import read_image

PROMPTS = 6
ZOOM_PROMPTS = 3
REGION = (0.18, 0.14, 0.36)  # top, left and side of what is enlarged, relative to the image
HEIGHT, GAP, LINE = 256, 10, 30  # pixels: of an image, between images, of a line of text
FONT = ImageFont.load_default(18)

Rows = Sequence[tuple[str, Sequence[Sequence[PILImage]]]]


class Column(NamedTuple):
    """Of a gallery: the images of a run."""

    title: str
    method: str
    folder: Path


def gallery_columns(table: pd.DataFrame, runs: Path) -> dict[str, list[Column]]:
    """For each resolution the columns of its gallery: each run once, without corrupted controls."""
    shown = without_corruptions(table).drop_duplicates("run")
    columns = map(Column, row_labels(shown), shown["method"], run_folders(shown, runs))
    found: dict[str, list[Column]] = {}
    for resolution, column in zip(shown["resolution"], columns, strict=True):
        found.setdefault(resolution, []).append(column)
    return found


def shared_records(columns: Sequence[Column], limit: int) -> list[list[Record]]:
    """For each of the first ``limit`` prompts that the runs of all columns have, its record in each of them."""
    found = [{record.id: record for record in read_records(column.folder)} for column in columns]
    ids = sorted(set.intersection(*map(set, found)))[:limit]
    return [[records[key] for records in found] for key in ids]


def write_grid(titles: Sequence[str], rows: Rows, path: Path) -> None:
    """Write lines of images under the titles of their columns; ``rows`` are (prompt, its lines of images), the
    prompt stands below.
    """
    widths = [image.width for image in rows[0][1][0]]
    headings = [broken(title.replace("_", " "), width) for title, width in zip(titles, widths, strict=True)]
    top = LINE * max(map(len, headings))
    lines = sum(len(images) for _, images in rows)
    size = sum(widths) + GAP * (len(widths) - 1), top + lines * (HEIGHT + GAP) + LINE * len(rows)
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    lefts = [sum(widths[:column]) + GAP * column for column in range(len(widths))]
    for left, width, heading in zip(lefts, widths, headings, strict=True):
        for row, text in enumerate(heading):
            pen.text((left + width / 2, (row + 0.5) * LINE), text, fill="black", font=FONT, anchor="mm")
    for prompt, images in rows:
        for line in images:
            for left, image in zip(lefts, line, strict=True):
                canvas.paste(image, (left, top))
            top += HEIGHT + GAP
        pen.text((0, top - GAP / 2), fitting(prompt, canvas.width), fill="black", font=FONT)
        top += LINE
    with open_atomically(path) as file:
        canvas.save(file, format="PNG", compress_level=4)  # in half the time of 6, and 1% larger


def broken(title: str, width: int) -> list[str]:
    """Lines of a title that are no wider than so many pixels, broken between words."""
    lines: list[str] = []
    for word in title.split() or [""]:
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and FONT.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [fitting(line, width) for line in lines]


def fitting(prompt: str, width: int) -> str:
    """One line of a prompt, with an ellipsis where it is too long for so many pixels; without what would reorder or
    stack characters.
    """
    shown = plain(prompt[:1000])
    if FONT.getlength(shown) <= width:
        return shown
    kept = bisect(range(len(shown)), width, key=lambda count: math.ceil(FONT.getlength(f"{shown[:count]}…")))
    return f"{shown[: max(0, kept - 1)]}…"


def at_height(image: PILImage, filter_: Image.Resampling = Image.Resampling.LANCZOS) -> PILImage:
    """The image at the height of the grid."""
    return image.convert("RGB").resize((round(HEIGHT * image.width / image.height), HEIGHT), filter_)


def region(height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels of what is enlarged, with the image's own aspect."""
    top, left, side = REGION
    return round(left * width), round(top * height), round((left + side) * width), round((top + side) * height)


def framed(image: PILImage) -> PILImage:
    """The image at the height of the grid, with a frame around the region that is enlarged."""
    shown = at_height(image)
    left, top, right, bottom = region(shown.height, shown.width)
    pen = ImageDraw.Draw(shown)
    pen.rectangle((left - 2, top - 2, right + 2, bottom + 2), outline="white", width=5)
    pen.rectangle((left, top, right, bottom), outline="black", width=1)
    return shown


def enlarged(image: PILImage) -> PILImage:
    """The region with its pixels as they are, at the height of the grid."""
    return at_height(image.crop(region(image.height, image.width)), Image.Resampling.NEAREST)


def jpeg(image: PILImage, width: int) -> bytes:
    """The image as a JPEG, downsampled if it is wider than ``width`` pixels: for notebooks and pages."""
    stream, shown = io.BytesIO(), image.convert("RGB")
    if shown.width > width:
        shown = shown.resize((width, max(1, round(shown.height * width / shown.width))), Image.Resampling.LANCZOS)
    shown.save(stream, "JPEG", quality=80, optimize=True)
    return stream.getvalue()


def read_images(columns: Sequence[Column], prompts: int) -> list[tuple[str, list[PILImage]]]:
    """(prompt, its image in each column) for the first prompts that all columns have; ValueError if there are none."""
    shared = shared_records(columns, prompts)
    if not shared:
        folders = ", ".join(sorted({str(column.folder) for column in columns}))
        raise ValueError(f"no prompt has an image in each of {folders}: run the experiment again")
    return [
        (records[0].prompt, [read_image(c.folder / r.file) for c, r in zip(columns, records, strict=True)])
        for records in shared
    ]


def write_gallery(columns: Sequence[Column], path: Path, prompts: int = PROMPTS) -> None:
    """One row for each of the first prompts, one column for each run, images of one height."""
    rows = [(prompt, [[at_height(p) for p in line]]) for prompt, line in read_images(columns, prompts)]
    write_grid([column.title for column in columns], rows, path)


def write_zoom(columns: Sequence[Column], path: Path, prompts: int = ZOOM_PROMPTS) -> None:
    """Two lines for each of the first prompts: the images with a frame around a region, and that region enlarged."""
    images = read_images(columns, prompts)
    rows = [(prompt, [[framed(p) for p in line], [enlarged(p) for p in line]]) for prompt, line in images]
    write_grid([column.title for column in columns], rows, path)
