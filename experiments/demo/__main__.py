"""`python -m experiments.demo [--host HOST] [--port PORT] [OVERRIDE ...]`: a local web page that draws with any method
of the benchmark beside direct inference: the embedded model, or model=folder model.path=DIR.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
from collections.abc import Sequence

from experiments.setup.command_line import command

LOOPBACK = "127.0.0.1"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.demo",
        description="A local web page that draws with any method beside direct inference.",
    )
    add = parser.add_argument
    add("overrides", nargs="*", metavar="OVERRIDE", help="of the configuration, as model=folder model.path=DIR")
    add("--host", default=LOOPBACK, help=f"address to listen on (default: {LOOPBACK}, this machine alone)")
    add("--port", type=int, help="default: the first free one from 7860 on")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Serve the page until it is interrupted; ValueError without Gradio, OSError if the port is taken."""
    options = build_parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="scalecrafter-demo-") as folder:
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}  # before it is imported
        try:
            from experiments.demo.serving import serve
        except ModuleNotFoundError as error:
            raise ValueError(f"the page needs {error.name}: make demo installs it") from error
        with serve(options.overrides, options.host, options.port) as url:
            print(f"{url} (Ctrl+C ends it)", flush=True)
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                print("ended")


if __name__ == "__main__":
    command(main)
