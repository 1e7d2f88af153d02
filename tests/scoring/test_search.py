"""The search for settings: what it finds where the answer is known, and that it is even."""

import json
import shlex

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from experiments import search as search_module
from experiments.search import SPACE, Rule, main, read_space, search, stages_of, write_record
from experiments.setup.architecture import open_architecture
from experiments.setup.compose import compose_config
from experiments.setup.runs import build_run
from experiments.setup.schema import CONF
from experiments.setup.weights import weights_digest
from tests.tiny import tiny_overrides

BOWL = {"m": {"a": {"any": ["a=1", "a=2", "a=3"]}, "b": {"x16": ["b=1 c=5"], "any": ["b=2"]}}, "fixed": {}}


def bowl(overrides):
    """Lowest at a = 2, b = 1, c = 5; the objective is split over two scores."""
    at = {"a": 0, "b": 0, "c": 0} | dict((key, int(value)) for key, value in (part.split("=") for part in overrides))
    scores = {"kid_r": (at["a"] - 2) ** 2 + 0.0, "pkid_r": abs(at["b"] - 1) + abs(at["c"] - 5) / 10}
    return {"fid_r": 99} | means({name: 4 * [value] for name, value in scores.items()})


def means(values):
    """Scores that are means over prompts, with their jackknife: its error is that of a mean."""
    found = {}
    for name, each in values.items():
        without = [(sum(each) - value) / (len(each) - 1) for value in each]
        found[name] = sum(each) / len(each)
        found[f"{name}_jackknife"] = {"without": without, "sizes": [1] * len(each), "prompts": "same"}
    return found


def test_each_stage_starts_from_the_best_so_far():
    best, rows = search(BOWL, "m", "x16", bowl)
    assert best == ["a=2", "b=1", "c=5"]
    assert [row["candidate"] for row in rows] == ["", "a=1", "a=2", "a=3", "a=2 b=2", "a=2 b=1 c=5"]
    assert [row["objective"] for row in rows] == [5.5, 2.5, 1.5, 2.5, 1.5, 0]
    assert [row["chosen"] for row in rows] == [False] * 5 + [True]


def test_sizes_have_candidates_of_their_own():
    best, rows = search(BOWL, "m", "x4", bowl)
    assert best == ["a=2"]  # b = 2 is no better, and what is simpler stays
    assert len(rows) == 5


def test_nothing_to_choose_is_the_configured_method():
    best, rows = search(BOWL, "fixed", "x4", bowl)
    assert (best, len(rows), rows[0]["chosen"]) == ([], 1, True)


def costing(overrides):
    """The bowl, where each unit of b costs a tenth of direct inference, and a = 2 as much as it."""
    at = dict(part.split("=") for part in overrides)
    return bowl(overrides) | {"cost": 0.5 + 0.5 * (at.get("a") == "2") - 0.1 * int(at.get("b", 0))}


def test_a_choice_costs_no_more_than_allowed():
    """a = 2 is the lowest, but costs 1.0: the best of what is left is a = 1, b = 1, c = 5."""
    best, rows = search(BOWL, "m", "x16", costing, rule=Rule(most_cost=0.6))
    assert best == ["a=1", "b=1", "c=5"]
    assert [row["cost"] for row in rows] == pytest.approx([0.5, 0.5, 1.0, 0.5, 0.3, 0.4])
    assert [row["objective"] for row in rows][:4] == [5.5, 2.5, 1.5, 2.5]
    best, rows = search(BOWL, "m", "x16", costing, rule=Rule(most_cost=0.1))
    assert (best, any(row["chosen"] for row in rows)) == ([], False)


def test_the_cheapest_that_keeps_its_score():
    """b = 2 costs least and its objective of 2.5 is below the configured method's 5.5; that of a = 1, b = 1 is 1."""
    best, rows = search(BOWL, "m", "x16", costing, rule=Rule(keep=0.0))
    assert best == ["a=1", "b=2"]
    assert [row["candidate"] for row in rows if row["chosen"]] == ["a=1 b=2"]
    worse = {"m": {"s": {"any": ["a=9", "b=2"]}}}  # cheaper, and 1 worse than the start with b = 2

    def dearer(overrides):
        return costing(overrides) | means({"kid_r": 4 * [5.0 * ("b=2" in overrides)]})

    assert search(worse, "m", "x4", dearer, rule=Rule(keep=0.5))[0] == []


def test_only_what_is_significantly_better_replaces_the_configured_settings():
    """Against a paired t-test: the lowest mean, from one lucky prompt, is passed over for a smaller, certain gain."""
    rng = np.random.default_rng(3)
    prompts = rng.normal(size=12)
    gains = {
        "lucky=1": 8.0 * (np.arange(12) == 4),
        "sure=1": 0.3 + 0.1 * rng.normal(size=12),
        "worse=1": np.full(12, -1),
    }

    def score(overrides):
        gain = sum((gains[each] for each in overrides), np.zeros(12))
        return means({"kid_r": (prompts - gain).tolist(), "pkid_r": (2 + 0 * gain).tolist()})

    space = {"m": {"s": {"any": list(gains)}}}
    best, rows = search(space, "m", "x4", score, rule=Rule(level=0.05))
    assert best == ["sure=1"]
    for row in rows[1:]:
        gain = gains[row["candidate"]]
        assert row["change"] == pytest.approx(-gain.mean())
        assert row["change_se"] == pytest.approx(gain.std(ddof=1) / 12**0.5, abs=1e-12)
    assert (
        ttest_rel(prompts, prompts - gains["sure=1"]).pvalue
        < 0.05 / 3
        < ttest_rel(prompts, prompts - gains["lucky=1"]).pvalue
    )
    assert search(space, "m", "x4", score)[0] == ["lucky=1"]
    assert search({"m": {"s": {"any": ["worse=1", "lucky=1"]}}}, "m", "x4", score, rule=Rule(level=0.05))[0] == []


def test_no_method_gets_more_than_the_budget():
    with pytest.raises(ValueError, match="m at x16 lists 6 candidates, the budget is 5 runs"):
        search(BOWL, "m", "x16", bowl, budget=5)
    with pytest.raises(ValueError, match="no search is defined for other: choose from m, fixed"):
        search(BOWL, "other", "x16", bowl)


def test_the_shipped_space_is_within_the_budget_and_lists_every_method_of_the_table():
    space = read_space(SPACE)
    assert set(space) == {path.stem for path in (CONF / "method").glob("*.yaml") if "real" not in path.stem} - {
        "upscale_sd"
    }
    for method in space:
        for resolution in ("x4", "x16"):
            stages_of(space, method, resolution, search_module.BUDGET)


@pytest.mark.parametrize("method", ["scalecrafter", "scalecrafter_cascade"])
def test_what_is_pruned_fits_the_embedded_model(method):
    """Each candidate alone, and the last one of each stage on top of the others."""
    space = read_space(SPACE.with_name("pruning.yaml"))
    for resolution in ("x4", "x16"):
        stages = stages_of(space, method, resolution, search_module.BUDGET)
        lines = [shlex.split(candidate) for _, candidates in stages for candidate in candidates]
        together = [part for _, candidates in stages for part in shlex.split(candidates[-1])]
        for line in [*lines, together]:
            run = build_run(compose_config([f"method={method}", f"resolution={resolution}", *line]), open_architecture)
            assert run.method_name == method


def test_a_file_that_is_no_space_is_refused(tmp_path):
    (tmp_path / "space.yaml").write_text("multidiffusion: [1, 2]\n")
    with pytest.raises(ValueError, match="is no search space"):
        main(["--space", str(tmp_path / "space.yaml")])


def test_the_command_samples_other_prompts_and_seeds_than_tables(pipe_folder, tmp_path, capsys):
    """On the tiny pipeline: complete runs on disk, one row each, the lowest chosen."""
    (tmp_path / "space.yaml").write_text(json.dumps({"multidiffusion": {"s": {"any": ["multidiffusion.stride=4"]}}}))
    tiny = [line for line in tiny_overrides(pipe_folder, tmp_path) if not line.startswith("prompts.limit")]
    options = ["--space", str(tmp_path / "space.yaml"), "--resolutions", "x4", "--out", str(tmp_path / "found.csv")]
    main([*options, "--limit", "3", "--level", "1", *tiny, "metrics.crops=32:1"])
    table = pd.read_csv(tmp_path / "found.csv", keep_default_na=False)
    assert list(table["candidate"]) == ["", "multidiffusion.stride=4"]
    assert table["kid_r"].nunique() == 2
    assert set(table["weights"]) == {weights_digest(pipe_folder)[:8]}
    assert (
        table.set_index("candidate")["objective"].astype(float).idxmin() == table[table["chosen"]]["candidate"].item()
    )
    folders = sorted((tmp_path / "runs").glob("*-multidiffusion-64x64-*"))
    assert len(folders) == 2
    assert len((folders[0] / "manifest.jsonl").read_text().splitlines()) == 3
    other = ["method=multidiffusion", "resolution=x4", "prompts.limit=3", "prompts.seed=71", "seed=7"]
    assert build_run(compose_config([*tiny, *other])).folder in folders
    used = compose_config([])
    assert used.seed != 7
    assert used.prompts.seed != 71
    assert "best of 2 for multidiffusion at x4" in capsys.readouterr().out


def test_a_search_replaces_its_own_rows_only(tmp_path):
    """Other methods and sizes stay as they were written, with whatever columns they have."""
    path = tmp_path / "found.csv"

    def row(method, resolution, value):
        return {"method": method, "resolution": resolution, "candidate": "", "kid_r": value, "chosen": True}

    write_record(path, [row("a", "x4", 1.23456), row("b", "x4", 2.0), row("b", "x4", 2.5), row("b", "x16", 3.0)])
    assert path.read_text().splitlines()[1] == "a,x4,,1.2346,True"
    write_record(path, [row("b", "x4", 4.0) | {"weights": "0123abcd"}])
    assert path.read_text().splitlines() == [
        "method,resolution,candidate,kid_r,chosen,weights",
        "a,x4,,1.2346,True,",
        "b,x16,,3.0,True,",
        "b,x4,,4.0,True,0123abcd",
    ]


def test_the_command_records_costs(pipe_folder, tmp_path, capsys):
    """Planned FLOPs over those of direct inference: a base pass in one of two steps costs a quarter more, if decoding
    cost nothing.
    """
    damped = "scalecrafter.noise_damped_tau=50"
    (tmp_path / "space.yaml").write_text(json.dumps({"scalecrafter": {"base pass": {"any": [damped]}}}))
    tiny = [line for line in tiny_overrides(pipe_folder, tmp_path) if not line.startswith("prompts.limit")]
    options = ["--space", str(tmp_path / "space.yaml"), "--resolutions", "x4", "--out", str(tmp_path / "found.csv")]
    main([*options, "--limit", "3", "--most-cost", "0.9", *tiny, "metrics.crops=32:1"])
    table = pd.read_csv(tmp_path / "found.csv", keep_default_na=False)
    assert table["cost"][0] == pytest.approx(1, abs=0.01)
    assert 1.01 < table["cost"][1] <= 1.25
    assert not table["chosen"].any()
    assert "none is cheap enough" in capsys.readouterr().out
