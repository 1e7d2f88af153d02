"""Sheets of images: blocks of cells of one size, each with a line below it, and a caption under all."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.Image import Image as PILImage

from eval.files import write_atomically
from experiments.results.galleries import fitting

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
    size = columns * (width + BETWEEN) - BETWEEN, len(rows) * (height + BETWEEN // 2) + LINE * len(caption)
    sheet = Image.new("RGB", size, "white")
    for down, row in enumerate(rows):
        for across, block in enumerate(row):
            draw_block(sheet, block, across * (width + BETWEEN), down * (height + BETWEEN // 2), side)
    pen = ImageDraw.Draw(sheet)
    for line, text in enumerate(caption):
        top = len(rows) * (height + BETWEEN // 2) + LINE * line
        pen.text((0, top + LINE / 2), fitting(text, size[0]), fill=INK, font=TEXT, anchor="lm")
    return sheet


def draw_block(sheet: PILImage, block: Block, left: int, top: int, side: int) -> None:
    """The title, the cells below it, and their texts."""
    pen = ImageDraw.Draw(sheet)
    pen.text((left, top + LINE / 2), fitting(block.title, sheet.width - left), fill=INK, font=TITLE, anchor="lm")
    top += LINE
    for cell in block.cells:
        if cell.image is None:
            pen.rectangle((left, top, left + side - 1, top + side - 1), fill=EMPTY)
            shown = "\n".join(textwrap.wrap(cell.text, side // 10, max_lines=side // LINE - 1, placeholder="…"))
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
