"""How long resuming takes where nothing is missing: flat images, scored once before. Measured is the whole command
after the imports, which looks at every image and every score and makes nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from experiments.sampling.synthetic import fill_run
from experiments.setup.compose import compose_config
from experiments.setup.grid import read_grid
from experiments.setup.runs import build_run

IMAGES_PER_RUN = 64


def measure_resume(
    main: Callable[[Sequence[str]], None], images: int, runs: int, overrides: Sequence[str]
) -> list[dict[str, Any]]:
    """Name, seconds and limit of resuming a run of so many images, and a sweep of so many runs; 0 leaves one out.

    Args:
        main: of `experiments.run`.
        overrides: that name the model.
    """
    seeds = ",".join(map(str, range(runs)))
    asked = [
        (images, f"a finished run of {images:,} images", 5.0, [f"prompts.limit={images}"]),
        (
            runs,
            f"{runs} finished runs of {IMAGES_PER_RUN} images",
            30.0,
            [f"prompts.limit={IMAGES_PER_RUN}", f"seed={seeds}"],
        ),
    ]
    shared = ["method=direct", "resolution=x1", "metrics.crops=null", *overrides]
    found = []
    for wanted, name, limit, own in asked:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
            line = [*shared, *own, f"paths.runs={folder}"]
            for row in read_grid(line).rows if wanted else ():
                fill_run(build_run(compose_config(row.overrides)))
            if wanted:
                main(line)
                started = time.perf_counter()
                main(line)
                found.append({"name": name, "seconds": time.perf_counter() - started, "limit": limit})
    return found


def resume_table(found: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| resuming | seconds | limit |", "|---|---:|---:|"]
    for each in found:
        verdict = f"{each['limit']:.0f}" + ("" if each["seconds"] <= each["limit"] else " exceeded")
        lines.append(f"| {each['name']} | {each['seconds']:.1f} | {verdict} |")
    return "\n".join(lines)
