"""The page of ablations: what each finished one claims and found, with its table. docs/ablations.md is this page for
the scenes model.
"""

from __future__ import annotations

from pathlib import Path

from experiments.results.reading import read_description, read_table
from experiments.results.score_table import SCORES, SHARES, markdown, readable
from experiments.setup import schema

PREFIX = "ablate_"
ORDER = (
    *("dilation", "layers", "progressive", "tau", "dispersion", "dispersed_kernel", "noise_damping", "guidance"),
    *("freeu", "eta"),
)
SHOWN = [SCORES[name] for name in ("fid_r", "fid_b", "pfid_r", "repetition")] + [SHARES["object_accuracy"]]
HEAD = """# Ablations on {models}

Made with `make ablations`: {prompts} prompts per run. For each file in `conf/experiment/`: its claim, what was found
on scenes, and its table without redundant columns. ± is the standard error over prompts; * is the best at its
resolution, or indistinguishable from it (paired difference within two standard errors)."""


def ablations_page(results: Path) -> str:
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
        _, claim, found = read_description(schema.CONF / "experiment" / f"{path.stem}.yaml")
        parts += [f"## {name}", f"**Claim.** {claim}", f"**Found.** {found}"]
        parts.append(markdown(shown[[*labels, *(title for title in SHOWN if title in shown)]]))
    if not parts:
        raise ValueError(f"no finished ablation in {results}: run make ablations first, or set paths.results")
    head = HEAD.format(models=", ".join(sorted(models)), prompts=" or ".join(map(str, sorted(prompts))))
    return "\n\n".join([head, *parts]) + "\n"
