"""`python -m experiments.prompts build SOURCE... --out FILE.jsonl --count N`: a manifest of prompts for prompts=laion.

python -m experiments.prompts build metadata/ --count 30000 --min-side 512 --max-punsafe 0.5 --language en
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.prompts.build import Draw, build_manifest
from experiments.prompts.filters import Filters
from experiments.setup.command_line import command


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.prompts", description="Prompts from metadata.")
    build = parser.add_subparsers(required=True).add_parser(
        "build",
        help="draw a manifest",
        description="Draw a manifest of prompts, the same whatever the order of files and rows; a smaller count gives "
        "the beginning of a larger one. Rows whose value for a filter is unknown are dropped.",
    )
    add = build.add_argument
    add(
        "sources",
        nargs="+",
        type=Path,
        metavar="SOURCE",
        help="parquet, csv, tsv, txt, img2dataset's tar, or a folder",
    )
    add("--out", type=Path, default=Path("prompts/laion.jsonl"), metavar="FILE.jsonl")
    add("--count", type=int, required=True, help="number of prompts")
    add("--seed", type=int, default=0, help="decides which (default: 0)")
    add("--min-side", type=int, metavar="PIXELS", help="of the shorter side, at least")
    add("--max-aspect", type=float, metavar="RATIO", help="longer side to shorter side, at most")
    add("--max-punsafe", type=float, metavar="P", help="probability of being unsafe, below")
    add("--max-pwatermark", type=float, metavar="P", help="probability of a watermark, below")
    add("--min-aesthetic", type=float, metavar="SCORE", help="at least")
    add("--language", nargs="+", default=[], metavar="CODE", help="as in the language column: en")
    add("--denylist", type=Path, metavar="FILE", help="an id, SHA-256 of a prompt, or url a line")
    add("--caption-column", metavar="NAME", help="if not text, caption or prompt")
    return parser


def main(argv: Sequence[str]) -> None:
    options = build_parser().parse_args(argv)
    filters = Filters(
        options.min_side,
        options.max_aspect,
        options.max_punsafe,
        options.max_pwatermark,
        options.min_aesthetic,
        tuple(sorted(options.language)),
    )
    draw = Draw(tuple(options.sources), options.count, options.seed, filters, options.denylist, options.caption_column)
    provenance = build_manifest(draw, options.out, progress=True)
    print(f"{options.out}: {provenance['count']} prompts of {provenance['read']} rows")


if __name__ == "__main__":
    command(main)
