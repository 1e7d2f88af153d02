"""Sheets of images: blocks of cells of one size, each with a line below it, and a caption under all."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.Image import Image as PILImage

from eval.files import write_atomically
from experiments.results.score_table import plain

KINDS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
LARGEST = 600_000  # bytes of a JPEG
GAP, BETWEEN, LINE = 4, 20, 27  # pixels: between cells of a block, between blocks, of a line of text
TITLE, TEXT = ImageFont.load_default(21), ImageFont.load_default(19)
INK, GREY, EMPTY = "black", "#555555", "#ececec"


@dataclass(frozen=True)
class Cell:
    """An image and a line below it; without an image, why there is none."""

    image: PILImage | None
    text: str


@dataclass(frozen=True)
class Block:
    """Cells side by side under a title."""

    title: str
    cells: Sequence[Cell]


def draw_sheet(blocks: Sequence[Block], caption: Sequence[str], side: int, columns: int) -> PILImage:
    """The blocks in rows of ``columns``, with cells of ``side`` x ``side`` pixels, and a caption of lines below."""
    cells = max(len(block.cells) for block in blocks)
    width, height = cells * (side + GAP) - GAP, side + 2 * LINE
    rows = [blocks[start : start + columns] for start in range(0, len(blocks), columns)]
    columns = max(map(len, rows))
    across, down = columns * (width + BETWEEN) - BETWEEN, len(rows) * (height + BETWEEN // 2)
    lines = [line for text in caption for line in wrapped(text, across, 3)]
    sheet = Image.new("RGB", (across, down + LINE * len(lines)), "white")
    for number, row in enumerate(rows):
        for column, block in enumerate(row):
            draw_block(sheet, block, column * (width + BETWEEN), number * (height + BETWEEN // 2), side)
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        pen.text((0, down + LINE * (number + 0.5)), line, fill=INK, font=TEXT, anchor="lm")
    return sheet


def wrapped(text: str, width: int, most: int, font: Any = TEXT) -> list[str]:
    """The text in lines of so many pixels, with an ellipsis where it has more than ``most`` of them."""
    lines: list[str] = []
    for word in plain(text[:1000]).split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1]} …"]


def draw_block(sheet: PILImage, block: Block, left: int, top: int, side: int) -> None:
    """The title, the cells below it, and their texts."""
    pen = ImageDraw.Draw(sheet)
    width = len(block.cells) * (side + GAP) - GAP
    title = "".join(wrapped(block.title, width, 1, TITLE))
    pen.text((left, top + LINE / 2), title, fill=INK, font=TITLE, anchor="lm")
    top += LINE
    for cell in block.cells:
        if cell.image is None:
            pen.rectangle((left, top, left + side - 1, top + side - 1), fill=EMPTY)
            shown = "\n".join(wrapped(cell.text, side - 20, side // LINE - 1))
            centre = left + side / 2, top + side / 2
            pen.multiline_text(centre, shown, fill=GREY, font=TEXT, anchor="mm", align="center", spacing=6)
        else:
            image = ImageOps.contain(cell.image.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
            sheet.paste(image, (left + (side - image.width) // 2, top + (side - image.height) // 2))
            pen.text((left + side / 2, top + side + LINE / 2), cell.text, fill=GREY, font=TEXT, anchor="mm")
        left += side + GAP


def check_picture(path: Path) -> None:
    """ValueError if no picture can be written there."""
    if path.suffix.lower() not in KINDS or path.is_dir():
        raise ValueError(f"--out {path} must be a file that ends in {', '.join(KINDS)}")


def write_picture(image: PILImage, path: Path) -> None:
    """Write a PNG, or a JPEG with the highest quality at which it has no more than `LARGEST` bytes."""
    kind = KINDS[path.suffix.lower()]
    for quality in range(94, 40, -4):
        stream = io.BytesIO()
        image.save(stream, format=kind, quality=quality, optimize=True)
        if kind == "PNG" or stream.tell() <= LARGEST:
            break
    write_atomically(path, stream.getvalue())
