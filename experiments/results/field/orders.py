"""The order of methods here and in published tables, size by size: where this world agrees and where it differs.

Values cannot be compared, because models, prompts and features differ; orders can. A pair of methods counts if both
tables have it.
"""

from __future__ import annotations

from itertools import combinations

import pandas as pd

from experiments.results.field.frontier import Group, Paired
from experiments.results.published import METRICS, published_scores
from scalecrafter.auto import AREA_RATIO

SIDES = {"sd15": 512, "sd21": 512, "sdxl": 1024}  # of the training size of the models in published tables
NAMES = {"self_cascade_tf": "sdedit"}  # published name -> ours
COMPARED = ("kid_r", "fid_r")  # of METRICS, the one that both have: KID is unbiased at few prompts


def published_at(ratio: float) -> pd.DataFrame:
    """Published values of `COMPARED` at an area ratio to the training size, with our names of methods."""
    table = published_scores()
    ratios = table["height"] * table["width"] / table["model"].map(SIDES) ** 2
    found = table[(ratios == ratio) & table["metric"].isin(COMPARED) & (table["height"] == table["width"])]
    return found.assign(method=found["method"].replace(NAMES))


def orders_section(group: Group) -> str:
    """What published tables of this size say of the methods that were compared here; empty if there are none."""
    resolution = str(group.rows["resolution"].iloc[0])
    if resolution not in AREA_RATIO or not set(COMPARED) & set(group.scores):
        return ""
    lines = []
    for (source, table, model), values in published_at(AREA_RATIO[resolution]).groupby(
        ["source", "table", "model"], sort=False
    ):
        name = next((name for name in COMPARED if name in group.scores and name in set(values["metric"])), None)
        if name is not None:
            here = values[(values["metric"] == name) & values["method"].isin(group.scores[name].estimates)]
            if len(here) > 1:
                scores = here.set_index("method")["value"].to_dict()
                lines.append(
                    f"- {source}, {table}, {model}, {METRICS[name]}: {order_text(scores, group.scores[name])}"
                )
    if not lines:
        return ""
    return "The order of methods in published tables of this size, and here:\n\n" + "\n".join(lines)


def order_text(published: dict[str, float], ours: Paired) -> str:
    """How many pairs are in the same order, and which are significantly in the other one."""
    pairs = [tuple(sorted(pair, key=lambda method: published[method])) for pair in combinations(published, 2)]
    pairs = [(a, b) for a, b in pairs if published[a] != published[b]]
    differences = {(a, b): ours.difference(a, b) for a, b in pairs}
    same = [pair for pair, difference in differences.items() if difference.value < 0]
    other = [pair for pair, difference in differences.items() if difference.value > 0 and difference.significant]
    text = f"{len(same)} of {len(pairs)} pairs in the same order"
    if not other:
        return f"{text}; none significantly in the other one."
    named = ", ".join(f"{a} before {b} there and behind it here" for a, b in other)
    return f"{text}; significantly in the other one: {named}."
