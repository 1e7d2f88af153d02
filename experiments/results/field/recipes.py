"""The recipe of each row of a table: scheduler, steps, guidance, negative prompt, FreeU and what SDXL is told.

The CSV of a table has all of it. The table that is read has a column for what differs between its methods, and one
line below it for what they share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from experiments.results.reading import CONTROLS
from scalecrafter.pipeline import is_sdxl

if TYPE_CHECKING:
    from experiments.setup.runs import Run

RECIPE = {
    "scheduler": "scheduler",
    "steps": "steps",
    "guidance_scale": "guidance",
    "eta": "eta",
    "negative_prompt": "negative prompt",
    "freeu": "FreeU",
    "size_condition": "SDXL is told",
}
NONE = "none"


def recipe_of(run: Run) -> dict[str, Any]:
    """The columns of `RECIPE`, from the identity of a run: what the sampler says, or else the method."""
    sampler, method = run.identity["sampler"], run.identity["method"]
    return {
        "scheduler": run.identity["scheduler"].removesuffix("Scheduler"),
        **{name: sampler[name] for name in ("steps", "guidance_scale", "eta")},
        "negative_prompt": sampler.get("negative_prompt") or NONE,
        "freeu": freeu_text(sampler.get("freeu") or method.get("freeu")),
        "size_condition": told_size(run) if is_sdxl(run.model.shape) else NONE,
    }


def freeu_text(freeu: Any) -> str:
    """FreeU's factors in one cell; True stands for a method's own."""
    if not freeu:
        return NONE
    if not isinstance(freeu, dict):
        return "the method's"
    return " ".join(f"{freeu[name]:g}" for name in ("b1", "b2", "s1", "s2")) + f" ({freeu['form']})"


def told_size(run: Run) -> str:
    """Whose size SDXL is told to be the original and target size."""
    method = run.identity["method"]
    if "size_condition" in run.identity["sampler"]:
        return str(run.identity["sampler"]["size_condition"])
    if "size_condition" in method:
        return str(method["size_condition"])
    return "base" if method.get("conditions") else "target"


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that were sampled, which real images were not."""
    sampled = table[~table["method"].isin(CONTROLS)]
    return sampled if len(sampled) else table


def varied(table: pd.DataFrame) -> dict[str, str]:
    """Column -> title of what differs between methods; empty for tables from before there were such columns."""
    rows = compared(table)
    return {name: title for name, title in RECIPE.items() if name in table and rows[name].nunique() > 1}


def recipe_cells(table: pd.DataFrame, name: str) -> list[str]:
    """The cells of one column; empty for real images."""
    return [recipe_cell(method, value) for method, value in zip(table["method"], table[name], strict=True)]


def recipe_cell(method: str, value: Any) -> str:
    return "" if method in CONTROLS else shown(value)


def shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def recipe_note(table: pd.DataFrame) -> str:
    """What all methods share, in one line."""
    rows, different = compared(table), varied(table)
    parts = [
        f"{RECIPE[name]} {shown(rows[name].iloc[0])}"
        for name in RECIPE
        if name in table and name not in different and (name, rows[name].iloc[0]) != ("size_condition", NONE)
    ]
    return f"Recipe of all rows: {', '.join(parts)}." if parts else ""
