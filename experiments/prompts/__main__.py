"""`python -m experiments.prompts build SOURCE... --out FILE.jsonl --count N`: build a manifest for prompts=laion.

python -m experiments.prompts build metadata/ --count 30000 --min-side 512 --max-punsafe 0.5 --language en
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.prompts.build import ManifestSpec, build_manifest
from experiments.prompts.filters import Filters
from experiments.setup.command_line import command


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.prompts", description="Sample prompts from image-text metadata."
    )
    build = parser.add_subparsers(required=True).add_parser(
        "build",
        help="build a manifest",
        description="Build a manifest of prompts. It does not depend on the order of files and rows, and a smaller "
        "count gives a prefix of a larger one. Rows with an unknown value for a filter are dropped.",
    )
    add = build.add_argument
    add(
        "sources",
        nargs="+",
        type=Path,
        metavar="SOURCE",
        help="parquet, csv, tsv or txt file, tar shard of img2dataset, or a folder",
    )
    add("--out", type=Path, default=Path("prompts/laion.jsonl"), metavar="FILE.jsonl")
    add("--count", type=int, required=True, help="number of prompts")
    add("--seed", type=int, default=0, help="seed of the sample (default: 0)")
    add("--min-side", type=int, metavar="PIXELS", help="minimum length of the shorter side")
    add("--max-aspect", type=float, metavar="RATIO", help="maximum ratio of longer to shorter side")
    add("--max-punsafe", type=float, metavar="P", help="keep rows with a lower probability of being unsafe")
    add("--max-pwatermark", type=float, metavar="P", help="keep rows with a lower probability of a watermark")
    add("--min-aesthetic", type=float, metavar="SCORE", help="minimum aesthetic score")
    add("--language", nargs="+", default=[], metavar="CODE", help="values of the language column, such as en")
    add("--denylist", type=Path, metavar="FILE", help="one prompt id, SHA-256 of a prompt or url per line")
    add("--caption-column", metavar="NAME", help="if it is not called text, caption or prompt")
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
    spec = ManifestSpec(
        tuple(options.sources), options.count, options.seed, filters, options.denylist, options.caption_column
    )
    provenance = build_manifest(spec, options.out, progress=True)
    print(f"{options.out}: {provenance['count']} prompts of {provenance['read']} rows")


if __name__ == "__main__":
    command(main)
