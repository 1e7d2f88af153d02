"""The frontier on made-up tables where it is known, and on finished runs of the tiny pipeline."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eval.score import as_metrics
from eval.uncertainty import estimate_mean
from experiments import table as table_command
from experiments.results.field import orders
from experiments.results.field.charts import charts_of, frontier_chart
from experiments.results.field.frontier import Paired, places, read_groups
from experiments.results.field.page import frontier_page
from experiments.results.reading import SCORES
from tests.tiny import tiny_overrides

N = 20
NOISE = np.random.default_rng(0).normal(size=N)  # shared by all methods: prompts that are hard for all
OWN = {name: np.random.default_rng(i).normal(size=N) for i, name in enumerate("abcdef", start=1)}


def made_up(means, spread=0.1):
    """name -> estimate of scores around each mean, to which every prompt adds the same for all methods."""
    centred = {name: spread * (OWN[name] - OWN[name].mean()) for name in means}
    return {name: estimate_mean(mean + NOISE - NOISE.mean() + centred[name]) for name, mean in means.items()}


MEANS = {"a": 5.0, "b": 3.0, "c": 3.001, "d": 6.0, "e": 1.0}
COSTS = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 5.0}


def test_the_known_frontier():
    """a, b and e are on it; c is 0.001 above the cheaper b, which nothing resolves; d is 3 above b."""
    found = places(Paired(made_up(MEANS)), COSTS)
    assert [(place.method, place.status) for place in found] == [
        ("a", "frontier"),
        ("b", "frontier"),
        ("c", "tied"),
        ("d", "behind"),
        ("e", "frontier"),
    ]
    assert [place.rival.other if place.rival else None for place in found] == [None, None, "b", "b", None]
    assert found[3].rival.value == pytest.approx(3)
    assert found[3].cost == 4.0


def test_equal_methods_share_the_frontier_and_equal_cost_does_not_save_the_worse():
    estimates = made_up({"a": 1.0, "b": 2.0}) | {"c": made_up({"a": 1.0})["a"]}
    found = {place.method: place.status for place in places(Paired(estimates), {"a": 1.0, "b": 1.0, "c": 1.0})}
    assert found == {"a": "frontier", "b": "behind", "c": "frontier"}


def test_differences_are_paired():
    """Their interval is Student's of the differences, which the shared noise does not widen."""
    estimates = made_up({"a": 5.0, "b": 3.0})
    difference = Paired(estimates).difference("a", "b")
    own = 0.1 * (OWN["a"] - OWN["b"])
    half = stats.t.ppf(0.975, N - 1) * own.std(ddof=1) / np.sqrt(N)
    assert difference.value == pytest.approx(2)
    assert difference.interval == pytest.approx((2 - half, 2 + half))
    assert difference.significant
    assert estimates["a"].se > 5 * half


def test_significance_counts_all_pairs():
    """A difference of 2.3 standard errors is clear between two methods, and not among six."""
    own = 0.1 * (OWN["a"] - OWN["b"])
    step = 2.3 * own.std(ddof=1) / np.sqrt(N)
    two, six = ({"a": 1 + step, "b": 1.0} | rest for rest in ({}, {"c": 1.0, "d": 1.0, "e": 1.0, "f": 1.0}))
    assert Paired(made_up(two)).difference("a", "b").significant
    assert not Paired(made_up(six)).difference("a", "b").significant


@pytest.fixture
def made(tmp_path):
    """A table and its score files: names of true methods with the means and costs above."""
    names = dict(zip(MEANS, ["upscale", "sdedit", "scalecrafter_cascade", "direct", "demofusion"], strict=True))
    rows = []
    for letter, estimate in made_up(MEANS).items():
        scores = as_metrics({"kid_r": estimate, "repetition": estimate}) | {"n": N, "protocol": {}}
        path = tmp_path / f"runs/{letter}/scores/s.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(scores))
        row = {"model": "scenes", "resolution": "x16", "size": "512x512", "method": names[letter], "variant": ""}
        row |= {"n": N, "run": letter, "scores": "scores/s.json", "kid_r": estimate.value, "kid_r_se": estimate.se}
        row |= {"repetition": estimate.value, "repetition_se": estimate.se, "steps": 15, "scheduler": "DDIM"}
        cost = COSTS[letter]
        rows.append(row | {"seconds_per_image": 6 - cost, "unet_evaluations_per_image": 100 * cost})
    real = rows[0] | {"method": "real", "seconds_per_image": 0.1, "unet_evaluations_per_image": 0.0, "kid_r": 0.0}
    return pd.DataFrame([*rows, real]), tmp_path / "runs"


def test_the_page_says_who_is_on_the_frontier(made):
    page = frontier_page(*made, ["kid_r", "pkid_r", "repetition"])
    assert "Recipe of all rows: scheduler DDIM, steps 15." in page
    assert "## x16 (512x512)" in page
    assert "**KID_r**: lowest is demofusion, 1.000 [" in page
    assert "Frontier by base-size pairs: upscale (100), sdedit (200), demofusion (500)." in page
    assert "Frontier by seconds: demofusion (1)." in page
    assert "pKID_r" not in page  # no run has it
    assert "real" not in page.split("## x16")[1]
    (line,) = [line for line in page.splitlines() if line.startswith("| direct ") and " 400 " in line]
    assert line.count(" ·· ") == 2
    (line,) = [line for line in page.splitlines() if line.startswith("| sdedit ") and " 200 " in line]
    assert line.count(" ●· ") == 2
    assert "| direct" in page.split("behind, by base-size pairs")[1]
    assert "+3.000 [" in page
    assert "**scalecrafter_cascade** costs 0.75 of direct inference (above 0.6)" in page
    assert "KID_r minus that of demofusion, the best other: +2.001 [" in page


def test_the_chart_has_a_row_for_each_method_and_fills_the_frontier(made):
    table, _ = made
    rows = table[table["method"] != "real"]
    seconds, evaluations, kid, repetition = frontier_chart("x16", rows, ["kid_r", "repetition"]).axes
    names = [label.get_text() for label in seconds.get_yticklabels()]
    by_name = rows.set_index(rows["method"].str.replace("_", " "))
    for axes, cost in ((seconds, "seconds_per_image"), (evaluations, "unet_evaluations_per_image")):
        assert [bar.get_width() for bar in axes.patches] == pytest.approx([by_name[cost][name] for name in names])
    assert by_name["seconds_per_image"][names].is_monotonic_decreasing  # the cheapest is at the top
    for axes, score in ((kid, "kid_r"), (repetition, "repetition")):
        marks = {mark.get_label(): mark.lines[0] for mark in axes.containers}
        assert [marks[name].get_xydata()[0].tolist() for name in names] == [
            [pytest.approx(by_name[score][name]), y] for y, name in enumerate(names)
        ]
        assert {name for name, mark in marks.items() if mark.get_markerfacecolor() != "white"} == {"demofusion"}
    bold = {label.get_text() for label in seconds.get_yticklabels() if label.get_fontweight() == "bold"}
    assert bold == {name for name in names if name.startswith("scalecrafter")}
    assert set(charts_of(table, {"frontier": ["kid_r"]})) == {"frontier_x16", "cost", "repetition"}


def test_each_size_has_a_section_and_a_chart(made):
    table, runs = made
    both = pd.concat([table, table.assign(resolution="x4", size="256x256")], ignore_index=True)
    assert set(charts_of(both, {"frontier": ["kid_r"]})) == {"frontier_x4", "frontier_x16", "cost", "repetition"}
    page = frontier_page(both, runs, ["kid_r"])
    assert "## x4 (256x256)" in page
    assert "## x16 (512x512)" in page


def test_orders_of_published_tables(made, monkeypatch):
    """Of three pairs one is in the same order, and the other two are clearly in the other one."""
    values = {"direct": 2.0, "self_cascade_tf": 3.0, "scalecrafter_cascade": 3.5, "somebody": 1.0}
    rows = [
        {"source": "P", "table": "T", "model": model, "method": name, "height": 2048, "width": 2048, "metric": "kid_r"}
        | {"value": value, "protocol": ""}
        for model in ("sd21", "sdxl")
        for name, value in values.items()
    ]
    monkeypatch.setattr(orders, "published_scores", lambda: pd.DataFrame(rows))
    (group,) = read_groups(*made, ["kid_r"])
    text = orders.orders_section(group)
    assert "- P, T, sd21, KID_r: 1 of 3 pairs in the same order; significantly in the other one: " in text
    assert "direct before sdedit there and behind it here" in text
    assert "direct before scalecrafter_cascade there" in text
    assert "sdxl" not in text  # 2048x2048 is four times its area
    monkeypatch.undo()
    assert "MegaFusion" not in orders.orders_section(group)  # its tables are at four times the area
    assert "LSRNA" in orders.orders_section(group)


def test_finished_runs_give_a_page_and_charts(pipe_folder, finished, tmp_path, capsys):
    """The common recipe is that of these runs, so that none is sampled again."""
    line = ["experiment=field", "resolution=x4", "method=direct,upscale,scalecrafter"]
    options = [*tiny_overrides(pipe_folder, finished), f"paths.results={tmp_path}"]
    table_command.main([*line, *options])
    assert "not finished" not in capsys.readouterr().out
    page = (tmp_path / "field_folder_frontier.md").read_text()
    assert page.startswith("# Quality against cost on folder\n\n4 prompts per run.")
    for text in (
        "## x4 (64x64)",
        "**scalecrafter** costs 1.00 of direct",
        *SCORES["kid_r"].split()[:1],
    ):
        assert text in page
    assert (tmp_path / "field_folder_frontier_x4.png").stat().st_size > 200
    table = pd.read_csv(tmp_path / "field_folder.csv")
    assert list(table.loc[0, ["scheduler", "steps", "eta", "negative_prompt", "freeu"]]) == [
        "DDIM",
        2,
        0,
        "none",
        "none",
    ]
    assert "Recipe of all rows: scheduler DDIM, steps 2, guidance 7.5" in (tmp_path / "field_folder.md").read_text()


def test_each_method_is_compared_with_itself_under_another_recipe(made):
    """Direct inference becomes the best, demofusion 0.5 worse; the other three are the same runs in both."""
    table, runs = made
    names = dict(zip(table["method"], table["run"], strict=False))
    shifted = made_up(MEANS | {"d": 0.5, "e": 1.5})
    rows = table[table["method"] != "real"].copy()
    for method in ("direct", "demofusion"):
        letter, run = names[method], f"{names[method]}_euler"
        estimate = shifted[letter]
        path = runs / run / "scores/s.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(as_metrics({"kid_r": estimate}) | {"n": N, "protocol": {}}))
        rows.loc[rows["method"] == method, ["run", "scheduler", "kid_r"]] = [run, "Euler", estimate.value]
    page = frontier_page(rows, runs, ["kid_r"], ("field_scenes", table))
    text = page.split("minus those in `field_scenes`")[1]
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert set(lines) == {"method", "direct", "demofusion", "mean of 2"}
    assert "scheduler DDIM → Euler" in lines["demofusion"]
    assert "| +0.500 [+0.500, +0.500] * |" in lines["demofusion"]
    assert "| -5.500 [-5.500, -5.500] * |" in lines["direct"]
    assert "| scheduler DDIM → Euler | -2.500 [-2.500, -2.500] |" in re.sub(" +", " ", lines["mean of 2"])
    assert "The same images in both: upscale, sdedit, scalecrafter_cascade." in text
    assert "differ significantly in both experiments, in the same order: 5; in opposite orders: 4 (" in text
    opposite = (
        "direct before demofusion, direct before scalecrafter_cascade, direct before sdedit, direct before upscale"
    )
    assert f"({opposite}); only with these recipes: 0; only in `field_scenes`: 0." in text
    assert "minus those in" not in frontier_page(table, runs, ["kid_r"], ("field_scenes", table))


def test_other_prompts_are_not_compared(made):
    table, runs = made
    rows = table[table["method"] != "real"].assign(run=[f"{run}_other" for run in table["run"][:-1]])
    for run, letter in zip(rows["run"], table["run"], strict=False):
        (runs / run / "scores").mkdir(parents=True)
        scores = json.loads((runs / letter / "scores/s.json").read_text())
        (runs / run / "scores/s.json").write_text(
            json.dumps(scores | {"kid_r_jackknife": scores["kid_r_jackknife"] | {"prompts": "other"}})
        )
    page = frontier_page(rows, runs, ["kid_r"], ("field_scenes", table))
    assert "Not compared with `field_scenes`, which has other prompts." in page


def test_the_experiment_to_compare_with_is_read_from_its_table(pipe_folder, finished, tmp_path, capsys):
    """A run of the ablation stands for ScaleCrafter in the other table; before there is one, a line says so."""
    line = ["experiment=field", "resolution=x4", "method=direct,scalecrafter", "+experiment.plot.against=other"]
    options = [*tiny_overrides(pipe_folder, finished), f"paths.results={tmp_path}"]
    table_command.main([*line, *options])
    assert "no comparison with other, which has no table yet" in capsys.readouterr().out
    other = pd.read_csv(finished / "results/table1.csv")
    ablated = pd.read_csv(finished / "results/ablate_tau.csv").iloc[0]
    other.loc[(other["method"] == "scalecrafter") & (other["resolution"] == "x4"), ["run", "scores"]] = [
        ablated["run"],
        ablated["scores"],
    ]
    other.to_csv(tmp_path / "other.csv", index=False)
    table_command.main([*line, *options])
    text = (tmp_path / "field_folder_frontier.md").read_text().split("minus those in `other`")[1]
    assert "\n| scalecrafter |" in text
    assert "\n| direct " not in text
    assert "The same images in both: direct." in text
