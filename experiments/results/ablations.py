"""The page of ablations: what each finished one claims, what the paired differences say about it, and its table.

docs/ablations.md is this page for the scenes model. Every finding on it is computed from the scores of its runs;
nothing is written by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from eval.comparisons import minimum_detectable_difference
from eval.score import as_estimate
from eval.uncertainty import Estimate, interval_of
from experiments.results.reading import (
    SCORES,
    SHARES,
    read_description,
    read_scores,
    read_table,
    row_labels,
    score_files,
)
from experiments.results.score_table import markdown, readable
from experiments.setup import schema
from experiments.setup.identity import identity_digest

PREFIX = "ablate_"
ORDER = (
    *("dilation", "layers", "progressive", "tau", "dispersion", "dispersed_kernel", "noise_damping", "guidance"),
    *("freeu", "eta"),
)
SHOWN = [SCORES[name] for name in ("kid_r", "fid_r", "pkid_r", "repetition")] + [SHARES["object_accuracy"]]
CONTRASTED = ("kid_r", "pkid_r", "repetition")
HEAD = """# Ablations on {models}

Made with `make ablations`: {prompts} prompts per run. For each file in `conf/experiment/`: its claim, the paired
differences that test it (each other variant minus the one that the claim says is best, with a 95% interval), and its
table. ± is the standard error over prompts; * is the best at its resolution, or not significantly worse."""


@dataclass(frozen=True)
class Contrast:
    """A variant minus the expected one on the same prompts: positive means that the expected one is better."""

    resolution: str
    variant: str
    expected: str
    score: str
    difference: float
    interval: tuple[float, float]
    detectable: float

    @property
    def verdict(self) -> str:
        """What it says about the claim."""
        if self.interval[0] > 0:
            return "supports"
        if self.interval[1] < 0:
            return "contradicts"
        return f"no power (detects {self.detectable:.2g})"


def contrasts(table: pd.DataFrame, expected: dict[str, str], runs: Path) -> list[Contrast]:
    """The paired differences of an ablation, for each resolution and method that has the expected variant."""
    scores = [read_scores(path) for path in score_files(table, runs)]
    found = []
    for (resolution, _), group in table.groupby(["resolution", "method"], sort=False):
        best = [i for i in group.index if table["variant"][i] == expected.get(resolution)]
        for i in group.index if best else []:
            if i == best[0]:
                continue
            for name in CONTRASTED:
                if f"{name}_jackknife" in scores[i]:
                    pair = as_estimate(scores[i], name), as_estimate(scores[best[0]], name)
                    labels = row_labels(group.loc[[i, best[0]]])
                    found.append(contrast(resolution, labels[0], labels[1], name, *pair))
    return found


def contrast(resolution: str, variant: str, expected: str, name: str, one: Estimate, best: Estimate) -> Contrast:
    difference, error = one.minus(best)
    groups = len(best.group_sizes)
    interval = interval_of(difference, error, groups)
    return Contrast(
        resolution, variant, expected, name, difference, interval, minimum_detectable_difference(error, 1, groups)
    )


def contrast_table(found: list[Contrast]) -> pd.DataFrame:
    """A row for each variant: its differences to the expected one, and what each says about the claim."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for each in found:
        row = rows.setdefault(
            (each.resolution, each.variant), {"resolution": each.resolution, f"minus {each.expected}": each.variant}
        )
        low, high = each.interval
        title = SCORES[each.score].removesuffix(" ↓")
        row[title] = f"{each.difference:+.3f} [{low:+.3f}, {high:+.3f}]"
        row[f"{title}: the claim"] = each.verdict
    frame = pd.DataFrame(list(rows.values()))
    labels = [title for title in frame if title.startswith("minus ")]
    if len(labels) > 1:  # another variant is expected at each resolution
        merged = [
            next(f"{row[title]} {title}" for title in labels if not pd.isna(row[title])) for _, row in frame.iterrows()
        ]
        frame = frame.drop(columns=labels)
        frame.insert(1, "difference", merged)
    return frame


def ablations_page(results: Path, runs: Path) -> str:
    """Markdown of all ablations that have results; ValueError if none has."""
    parts, models, prompts = [], set(), set()
    for name in ORDER:
        path = results / f"{PREFIX}{name}.csv"
        if not path.is_file():
            continue
        table = read_table(path)
        models |= set(table["model"])
        prompts |= set(table["n"])
        description = read_description(schema.CONF / "experiment" / f"{path.stem}.yaml")
        parts += [f"## {name}", description.text, f"**Claim.** {description.claim}"]
        if found := contrasts(table, description.expected, runs):
            parts.append(markdown(contrast_table(found)))
        shown = readable(table)
        labels = ["resolution", *(["method"] if table["method"].nunique() > 1 else []), "variant"]
        parts.append(markdown(shown[[*labels, *(title for title in SHOWN if title in shown)]]))
        parts.append(f"Runs `{identity_digest({'runs': sorted(table['run'])})[:12]}`.")
    if not parts:
        raise ValueError(f"no finished ablation in {results}: run make ablations first, or set paths.results")
    head = HEAD.format(models=", ".join(sorted(models)), prompts=" or ".join(map(str, sorted(prompts))))
    return "\n\n".join([head, *parts]) + "\n"
