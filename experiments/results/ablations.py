"""`python -m experiments.results.ablations [overrides]`: ``<results>/ablations.md``, what each finished ablation claims and
found, with its table. docs/ablations.md is this page for the scenes model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.results.reading import read_description, read_table
from experiments.results.score_table import SCORES, SHARES, readable
from experiments.sampling.manifest import write_atomically
from experiments.setup.command_line import command
from experiments.setup.config import CONF, compose_config

PREFIX = "ablate_"
ORDER = ("dilation", "layers", "tau", "dispersion", "guidance", "freeu", "eta")
TOLD = [SCORES[name] for name in ("fid_r", "fid_b", "pfid_r", "repetition")] + [SHARES["object_accuracy"]]
HEAD = """# Ablations on {models}

Made with `make ablations`: {prompts} prompts a cell. What each file of `conf/experiment/` claims, what was found on
scenes, and its table without the columns that say nothing new. ± is the standard error over prompts; * is the best at
its resolution, or not told apart from it (paired difference within two standard errors)."""


def ablations(results: Path) -> str:
    """Markdown of all ablations that have results; ValueError if none has."""
    parts, models, prompts = [], set(), set()
    for name in ORDER:
        path = results / f"{PREFIX}{name}.csv"
        if not path.is_file():
            continue
        table = read_table(path)
        models |= set(table["model"])
        prompts |= set(table["n"])
        shown = readable(table)
        labels = ["resolution", *(["method"] if table["method"].nunique() > 1 else []), "variant"]
        kept = shown[[*labels, *(title for title in TOLD if title in shown)]]
        _, claim, found = read_description(CONF / "experiment" / f"{path.stem}.yaml")
        parts += [f"## {name}", f"**Claim.** {claim}", f"**Found.** {found}"]
        parts.append(kept.to_markdown(index=False, disable_numparse=True))
    if not parts:
        raise ValueError(f"no finished ablation in {results}: run make ablations first, or set paths.results")
    head = HEAD.format(models=", ".join(sorted(models)), prompts=" or ".join(map(str, sorted(prompts))))
    return "\n\n".join([head, *parts])


def write(overrides: Sequence[str]) -> None:
    results = Path(compose_config(overrides).paths.results)
    page = results / "ablations.md"
    write_atomically(page, (ablations(results) + "\n").encode())
    print(page)


if __name__ == "__main__":
    command(write)
