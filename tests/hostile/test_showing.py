"""Prompts and names, whatever they hold, in tables, galleries and the report: text, never markup or a formula."""

import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser
from random import Random

import pandas as pd
import pytest
from PIL import Image

from experiments import report
from experiments.results.artefacts import write_images, write_table
from experiments.results.galleries import FONT, fitting, write_grid
from experiments.results.html_table import table_view
from experiments.results.reading import read_table
from experiments.results.score_table import latex, markdown
from tests.hostile.inputs import BOTH, LONG, PIECES, damaged, error_of, text

NAMES = [
    "|",
    "a | b",
    "<script>x</script>",
    "$x$",
    "$\\foo$",
    "a_b%c",
    "\\input{x}",
    "{}",
    "a\nb",
    "\u202eabc",
    "\x1b[31m",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_cells_stay_cells(name):
    """A variant holds values of the command line."""
    shown = pd.DataFrame(
        {"resolution": ["x4", "x4"], "method": ["a", "b"], "variant": [name, "plain"], "KID_r ↓": ["1", "2"]}
    )
    lines = markdown(shown).splitlines()
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}
    assert not re.search(r"(?<!\\)<", markdown(shown))
    rows = [line for line in latex(shown).splitlines() if line.startswith("x4")]
    assert len(rows) == 2
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == 3
        assert not re.search(r"\\(input|foo)\b", row)
        assert not re.search(r"(?<!\\)%", row)
    assert all(line.isprintable() for line in lines)


def test_tables_charts_and_galleries_are_drawn(finished, tmp_path):
    """Of a finished experiment with all its images, whose variants have other names."""
    names = ["$\\foo$ <b> | \x1b[31m", "=1+1 \u202e\u05e9\u05dc\u05d5\u05dd \U0001f9d9"]
    table = read_table(finished / "results/ablate_tau.csv").assign(variant=names)
    write_table(table, tmp_path, "ablate_tau")
    drawn = write_images("ablate_tau", table, {"y": ["kid_r"]}, finished / "runs", tmp_path)
    with (tmp_path / "ablate_tau.csv").open(newline="", encoding="utf-8") as stream:
        assert [row["variant"] for row in csv.DictReader(stream)] == names
    assert len(drawn) == 4
    for path in tmp_path.glob("*.png"):
        Image.open(path).load()


@pytest.mark.parametrize("count", BOTH)
def test_damaged_tables(finished, tmp_path, count):
    random, path = Random(14), tmp_path / "ablate_tau.csv"
    whole = (finished / "results/ablate_tau.csv").read_bytes()
    for _ in range(count):
        path.write_bytes(damaged(random, whole))
        error = error_of(lambda: table_view(read_table(path)))
        assert error is None or str(path) in str(error)


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc", "..", "", "a/b"])
@pytest.mark.parametrize("column", ["run", "scores"])
def test_tables_lead_to_no_other_folder(finished, tmp_path, column, name):
    table = read_table(finished / "results/ablate_tau.csv")
    table.assign(**{column: name}).to_csv(tmp_path / "ablate_tau.csv", index=False)
    with pytest.raises(ValueError, match=f"was changed in {column}: create it again"):
        read_table(tmp_path / "ablate_tau.csv")


class Page(HTMLParser):
    """Tags, and the alternative texts of images."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.alternatives, self.handlers = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.alternatives += [value for name, value in attrs if name == "alt" and value]


def test_the_report_shows_prompts_as_text(finished, tmp_path):
    """All of the pieces at once, 100 kB, and what a browser or a template would run."""
    copied = shutil.copytree(finished, tmp_path / "copy")
    prompts = ["".join(piece for piece in PIECES if "\x00" not in piece), LONG, "".join(reversed(PIECES[1:]))]
    prompts.append(code := '</script><script>alert("it\'s")</script> & {{ 7 * 7 }}')
    for manifest in copied.glob("runs/*/manifest.jsonl"):
        lines = [json.loads(line) for line in manifest.read_text().splitlines()]
        for line, prompt in zip(lines, prompts, strict=False):
            del line["crc"]
            line["prompt"] = prompt
        manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report.main([f"paths.runs={copied / 'runs'}", f"paths.results={copied / 'results'}"])
    page = Page((copied / "results/report.html").read_bytes().decode("utf-8"))
    assert page.tags.count("script") == 1
    assert "iframe" not in page.tags
    assert page.handlers == []
    assert any(LONG.strip() in alternative for alternative in page.alternatives)
    assert sum(alternative.startswith(f"{code}, by ") for alternative in page.alternatives) == 6 + 2


@pytest.mark.parametrize("count", BOTH)
def test_prompts_fit_below_their_images(count):
    random = Random(13)
    for _ in range(2 * count):
        prompt, width = text(random), random.choice((20, 100, 256, 900))
        shown = fitting(prompt, width)
        assert shown.isprintable()
        assert FONT.getlength(shown) <= max(width, FONT.getlength("…"))
    assert fitting("a red mushroom", 900) == "a red mushroom"
    assert fitting("long words " * 50, 200).endswith("…")


def test_galleries_with_hostile_prompts_are_drawn(tmp_path):
    image = Image.new("RGB", (256, 256))
    rows = [(prompt, [[image, image]]) for prompt in (LONG, *PIECES)]
    write_grid([LONG[:100], "\u202e\n"], rows, tmp_path / "gallery.png")
    with Image.open(io.BytesIO((tmp_path / "gallery.png").read_bytes())) as drawn:
        assert drawn.width == 2 * 256 + 10
