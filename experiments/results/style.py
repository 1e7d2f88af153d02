"""The look of charts: one colour and marker per method, sizes for a paper's column, file formats."""

from __future__ import annotations

import logging
import re
import zlib
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval.files import open_atomically

COLUMN = 3.3  # inches, the width of a paper's column
INK = "#1b1f24"  # of text and axes; a report replaces it by the colour of its own text

# Okabe and Ito's colour-blind-safe palette, legible on light and dark pages, with a marker per method.
METHODS = {
    "direct": ("#7f7f7f", "o"),
    "upscale": ("#0072b2", "s"),
    "upscale_sd": ("#56b4e9", "D"),
    "attention_scaling": ("#cc79a7", "v"),
    "multidiffusion": ("#009e73", "^"),
    "syncdiffusion": ("#e69f00", "P"),
    "scalecrafter": ("#d55e00", "*"),
    "scalecrafter_cascade": ("#e8833a", "$C$"),
    "deep_shrink": ("#b5651d", "<"),
    "hidiffusion": ("#3c8dbc", ">"),
    "fouriscale": ("#d0699b", "H"),
    "demofusion": ("#7b5ea7", "_"),
    "accdiffusion": ("#3f7f5f", "8"),
    "sdedit": ("#b8860b", "1"),
    "sdedit_rgb": ("#6b8e23", "2"),
    "megafusion": ("#4682b4", "3"),
    "diffusehigh": ("#cd5c5c", "4"),
    "rectifiedhr": ("#9370db", "+"),
    "frecas": ("#2e8b8b", "x"),
    "freescale": ("#c71585", "|"),
    "real": ("#4c9f70", "X"),
    "real_blur": ("#a0785a", "h"),
    "real_enlarge": ("#8a86c9", "p"),
    "real_grid": ("#c77cb0", "d"),
}
# For methods without a line above; the name decides which one, so that it is the same in every figure.
SPARE = [("#8c6bb1", "<"), ("#a6761d", ">"), ("#44aa99", "H"), ("#b35977", "8")]

CHART: Any = {
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.1,
    "errorbar.capsize": 1.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.2,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # a name may have dollar signs
    "svg.fonttype": "none",
    "svg.hashsalt": "scalecrafter",
    "pdf.fonttype": 42,
}


def method_style(method: str) -> dict[str, Any]:
    """Colour and marker of a method for matplotlib, the same everywhere."""
    colour, marker = METHODS.get(method) or SPARE[zlib.crc32(method.encode()) % len(SPARE)]
    size = {"*": 7.0, "P": 5.5}.get(marker, 4.5)  # these two look smaller
    filled = marker in Line2D.filled_markers  # others are hardly more than their edge
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.4} if filled else {"markeredgewidth": 1.0}
    return {"color": colour, "marker": marker, "markersize": size} | edge


def shades(colour: str, count: int) -> list[str]:
    """``count`` shades of a colour from light to dark; one is the colour itself."""
    mixed = []
    for share in np.linspace(0.5, -0.5, count) if count > 1 else (0.0,):
        end = np.ones(3) if share > 0 else np.zeros(3)
        mixed.append(to_hex((1 - abs(share)) * np.array(to_rgb(colour)) + abs(share) * end))
    return mixed


# Reports every glyph of a PDF's fonts at Hydra's level of logging.
logging.getLogger("fontTools").setLevel(logging.WARNING)


def save_chart(figure: Figure, stem: Path) -> list[Path]:
    """Write ``<stem>.png`` (300 dpi) and ``<stem>.pdf``."""
    paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".pdf")]
    with matplotlib.rc_context(CHART):
        for path in paths:
            with open_atomically(path) as file:
                kind = path.suffix.removeprefix(".")
                figure.savefig(file, format=kind, dpi=300, facecolor="white", bbox_inches="tight")
    return paths


def chart_svg(figure: Figure, name: str) -> str:
    """The chart as an SVG element for a page: no background, text and axes in the page's text colour, ids prefixed
    with ``name`` so that two charts on one page do not collide.
    """
    stream = StringIO()
    with matplotlib.rc_context(CHART):
        figure.savefig(stream, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[0-9.]+pt"', "", svg, count=2)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return svg.replace(INK, "currentColor")
