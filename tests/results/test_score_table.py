"""Score tables: from run folders alone, never mixing protocols, in formats that parse."""

import re
import shutil

import pandas as pd
import pytest

from eval.comparisons import minimum_detectable_difference
from eval.score import as_estimate
from experiments import table as table_command
from experiments.results.galleries import gallery_columns
from experiments.results.html import section
from experiments.results.reading import RunRow, compared_groups, finished_rows, run_rows
from experiments.results.score_table import (
    collect,
    latex,
    note,
    readable,
    require_same_protocol,
    search_note,
)
from experiments.scoring.runs import complete_run
from experiments.setup import models
from experiments.setup.compose import compose_config
from experiments.setup.grid import read_grid
from experiments.setup.runs import build_run
from experiments.setup.schema import CONF
from tests.tiny import tiny_overrides

ROWS = ["experiment=table1", "resolution=x4", "method=direct,upscale,scalecrafter"]


@pytest.fixture
def runs(pipe_folder, finished, tmp_path, monkeypatch):
    """Overrides of the finished table with two of three runs, copied to where the model has only its architecture."""
    shape = tmp_path / "shape"
    shutil.copytree(pipe_folder, shape, ignore=shutil.ignore_patterns("*.safetensors", "tokenizer"))
    shutil.copytree(finished / "runs", tmp_path / "runs")
    for folder in (tmp_path / "runs").glob("folder-upscale-64x64-*"):
        shutil.rmtree(folder)
    monkeypatch.setattr(models, "load_folder", None)
    return [*ROWS, *tiny_overrides(shape, tmp_path)]


@pytest.fixture(scope="module")
def shared(pipe_folder, finished, tmp_path_factory):
    """Overrides of a folder with the finished runs, to which tests add runs of their own."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copytree(finished / "runs", folder / "runs")
    return tiny_overrides(pipe_folder, folder)


def completed(grid):
    """Its rows, and their scores."""
    rows = run_rows(grid)
    return rows, [complete_run(row.run) for row in rows]


def test_a_table_needs_no_weights_and_not_all_runs(runs, tmp_path, finished, capsys):
    table_command.main(runs)
    printed = capsys.readouterr().out
    assert "1 of 3 runs are not finished" in printed
    assert "no run folder-upscale-64x64-*" in printed
    made, before = (pd.read_csv(folder / "results/table1.csv") for folder in (tmp_path, finished))
    expected = before[(before["resolution"] == "x4") & (before["method"] != "upscale")].reset_index(drop=True)
    same = [name for name in before if not name.endswith(("_best", "_mdd"))]  # these depend on the other rows
    pd.testing.assert_frame_equal(made[same], expected[same])
    for name in ("table1.md", "table1.tex", "table1.png", "gallery_x4.png", "table1_cost.pdf"):
        assert (tmp_path / "results" / name).stat().st_size > 200


def test_runs_of_other_weights_are_not_mixed(runs, tmp_path):
    (folder,) = (tmp_path / "runs").glob("folder-direct-64x64-*")
    config = (folder / "config.yaml").read_text()
    sha256 = config.split("sha256: ")[1].split()[0]
    other = shutil.copytree(folder, folder.with_name("folder-direct-64x64-00000000"))
    (other / "config.yaml").write_text(config.replace(sha256, "0" * 64))
    with pytest.raises(ValueError, match="the same run with other weights or in another precision: folder-direct"):
        table_command.main(runs)


def test_a_run_folder_of_another_kind_is_refused(runs, tmp_path):
    other = tmp_path / "runs/folder-direct-64x64-11111111"
    other.mkdir()
    (other / "config.yaml").write_text("scheduler: x\n")
    with pytest.raises(ValueError, match="11111111 is not a run folder of this version .*: move it away"):
        table_command.main(runs)


def test_nothing_finished_names_what_is_missing(runs, tmp_path):
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(ValueError, match=r"table1 has no finished run: no run folder-direct-64x64"):
        table_command.main(runs)
    assert not (tmp_path / "results").exists()


def test_controls_set_the_floor_and_do_not_compete(shared, tmp_path):
    """The excess is the paired difference to the real images of the same resolution; stars are for methods only."""
    grid = read_grid(["experiment=table1", "resolution=x4", "method=direct,scalecrafter,real,real_grid", *shared])
    rows, scores = completed(grid)
    table = collect(rows).set_index("method")
    assert table["kid_r_excess"]["real"] == table["kid_r_excess_se"]["real"] == 0
    value, error = as_estimate(scores[0], "kid_r").minus(as_estimate(scores[2], "kid_r"))
    assert table["kid_r_excess"]["direct"] == pytest.approx(value)
    assert table["kid_r_excess_se"]["direct"] == pytest.approx(error)
    assert not table["kid_r_best"][["real", "real_grid"]].any()
    assert table["kid_r_best"][["direct", "scalecrafter"]].any()
    _, between = as_estimate(scores[0], "kid_r").minus(as_estimate(scores[1], "kid_r"))
    groups = len(as_estimate(scores[0], "kid_r").group_sizes)
    assert table["kid_r_mdd"]["direct"] == pytest.approx(minimum_detectable_difference(between, 1, groups))
    assert "KID_r − real" in readable(collect(rows))
    assert "Detectable with 80% power: differences of x4: KID_r" in note(collect(rows))
    assert "the floor" in note(collect(rows))
    assert "the floor" not in note(collect(rows[:2]))
    collect(rows).to_csv(tmp_path / "table1.csv", index=False)
    (gallery,) = section(CONF / "experiment/table1.yaml", "table1", None, grid.runs, tmp_path)["galleries"]
    assert gallery["titles"] == ["direct", "scalecrafter", "real"]  # of a report: corruptions are not shown
    assert [[method for _, method, _ in row["tiles"]] for row in gallery["rows"]] == [gallery["titles"]] * 4


def test_note_says_what_settings_were_searched(tmp_path):
    table, record = pd.DataFrame({"model": "scenes", "method": ["a", "b"]}), tmp_path / "search.csv"
    assert search_note(table, record) == "No settings were searched for scenes."
    lines = [
        "method,resolution,candidate,chosen",
        "b,x4,,True",
        "b,x4,b=1,False",
        "b,x16,,True",
        "a,x4,,True",
        "c,x4,,True",
    ]
    record.write_text("\n".join(lines))
    tried = "Settings tried on other prompts and seeds: b 2 at x4, 1 at x16; a 1 at x4; "
    assert search_note(table, record) == tried + "none was significantly better than those configured."
    record.write_text("\n".join(lines).replace("b,x4,,True", "b,x4,,False").replace("b=1,False", "b=1,True"))
    assert search_note(table, record) == tried + "better: b at x4 with b=1."
    assert search_note(pd.DataFrame({"model": ["scenes"], "method": ["d"]}), record) == search_note(
        table, tmp_path / "no"
    )
    assert search_note(pd.DataFrame({"model": ["sd15"], "method": ["a"]}), record) == ""


def test_a_table_never_mixes_protocols(shared):
    few, many = (build_run(compose_config([*shared, "method=direct", *limit])) for limit in ([], ["prompts.limit=6"]))
    for run in (few, many):
        complete_run(run)
    with pytest.raises(ValueError, match="cannot share a table: n is 4 and 6"):
        collect([RunRow(few), RunRow(many)])
    a, b = ({"n": 3, "protocol": {"extractor": name}} for name in "ab")
    with pytest.raises(ValueError, match="one and three cannot share a table: extractor is a and b"):
        require_same_protocol([("one", "x4", a), ("two", "x4", a), ("three", "x16", b)])


def test_a_grid_may_vary_the_number_of_prompts(shared):
    """Its rows are compared within a number, and no image is sampled or shown twice."""
    tiny = [line for line in shared if not line.startswith("prompts.limit")]
    line = ["experiment=table1", "resolution=x4", "method=direct,upscale", *tiny]
    grid = read_grid([*line, "prompts.limit=4,6"])
    rows, _ = completed(grid)
    assert [row.group for row in rows] == ["x4, limit 4", "x4, limit 6"] * 2
    table = collect(rows)
    assert list(table["n"]) == [4, 6, 4, 6]
    for n in (4, 6):
        alone = collect(run_rows(read_grid([*line, f"prompts.limit={n}"])))
        for name in ("kid_r_best", "kid_r_mdd", "fid_b_best"):
            assert list(table[table["n"] == n][name]) == list(alone[name])
    assert note(table).startswith("prompts per run: 4 and 6 at x4;")
    assert "differences of x4, 4 prompts: KID_r" in note(table)
    assert [title for title, _ in compared_groups(table)] == ["x4, 4 prompts", "x4, 6 prompts"]
    assert [len(columns) for columns in gallery_columns(table, grid.runs).values()] == [2]


def test_limits_beyond_the_prompts_that_exist_give_one_row(shared, tmp_path):
    tiny = [line for line in shared if not line.startswith("prompts.limit")]
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    line = [*tiny, "prompts=file", f"prompts.path={tmp_path / 'three.txt'}", "metrics.repetition=null"]
    grid = read_grid(["experiment=table1", "resolution=x4", "method=direct", "prompts.limit=paper,1k", *line])
    completed(grid)
    done, missing = finished_rows(grid)
    assert [(row.variant, len(row.run.prompts)) for row in done] == [("limit paper", 3)]
    assert missing == []


def test_references_may_only_differ_between_resolutions():
    a, b = ({"n": 3, "protocol": {"reference": {"source": name}}} for name in "ab")
    require_same_protocol([("one", "x4", a), ("two", "x16", b), ("three", "x4", a)])
    with pytest.raises(ValueError, match="two and three cannot share a table: reference is .*b.* and .*a"):
        require_same_protocol([("one", "x4", a), ("two", "x16", b), ("three", "x16", a)])


def latex_problems(text: str) -> list[str]:
    """What pdflatex would stumble over in a tabular: unescaped special characters, unbalanced braces, ragged rows."""
    problems = []
    plain = re.sub(r"\$[^$]*\$", "", text)
    body = re.sub(r"\\(begin|end)\{[a-z]+\}(\{[a-z]+\})?", "", plain)
    problems += re.findall(r"(?<!\\)[_%#$^~]", body)
    problems += [character for character in text if ord(character) > 127]
    if text.count("{") != text.count("}"):
        problems.append("braces")
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    columns = len(re.search(r"\\begin\{tabular\}\{([lrc]+)\}", text)[1])
    problems += [line for line in lines if len(re.findall(r"(?<!\\)&", line)) != columns - 1]
    return problems


def test_latex_tables_parse(finished):
    """Every .tex file, and variants with underscores and percent signs."""
    files = list((finished / "results").glob("*.tex"))
    assert len(files) == 2
    for path in files:
        text = path.read_text()
        assert r"\toprule" in text
        assert latex_problems(text) == []
    table = pd.read_csv(finished / "results/ablate_tau.csv")
    table["variant"] = ["dispersed_tau 20", "100% & more"]
    text = latex(readable(table))
    assert r"dispersed\_tau 20" in text
    assert r"100\% \& more" in text
    assert latex_problems(text) == []
    assert latex_problems(text.replace(r"dispersed\_tau", "dispersed_tau")) == ["_"]


def test_rows_of_a_table_are_found_by_their_recorded_identity(runs):
    done, missing = finished_rows(read_grid(runs))
    assert [row.run.method_name for row in done] == ["direct", "scalecrafter"]
    assert all(len(row.run.identity["model"]["sha256"]) == 64 for row in done)
    assert len(missing) == 1
