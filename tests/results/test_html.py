"""The report is one file that holds everything: tables, charts, images, protocol; nothing is sampled for it."""

import base64
import io
import json
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments import report
from experiments.results.galleries import gallery_columns, shared_records
from experiments.results.html import embed_image
from experiments.results.reading import read_table, run_folders
from experiments.setup.schema import CONF


class Page(HTMLParser):
    """All elements as (tag, attributes), and the text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag, **attributes):
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]


@pytest.fixture(scope="module")
def html(report_page):
    return report_page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_it_needs_no_other_file(html, page):
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "poster", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert not {"iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    assert "@import" not in html
    assert "url(" not in html.replace("url(#", "")
    assert all("src" not in script for script in page.all("script"))


def test_every_image_is_there_and_is_the_right_one(finished, page):
    images = [found for found in page.all("img") if "src" in found]
    expected = []
    for name, limit in (("table1", 8), ("ablate_tau", 4)):
        table = read_table(finished / f"results/{name}.csv")
        for columns in gallery_columns(table, finished / "runs").values():
            for records in shared_records(columns, limit):
                expected += [(c.folder / r.file, r.prompt, c.title) for c, r in zip(columns, records, strict=True)]
    assert len(images) == len(expected) == 4 * 6 + 4 * 2
    for found, (path, prompt, title) in zip(images, expected, strict=True):
        assert found["alt"] == f"{prompt}, by {title}".replace("_", " ")
        shown = Image.open(io.BytesIO(base64.b64decode(found["src"].partition("base64,")[2])))
        difference = np.asarray(shown).astype(int) - np.asarray(Image.open(path)).astype(int)
        assert shown.format == "WEBP"
        assert np.abs(difference).mean() < 20  # pure noise, the hardest to compress; two images differ by 60


def test_tables_hold_the_scores_of_the_results(finished, page):
    table = pd.read_csv(finished / "results/table1.csv")
    values = [float(cell["data-value"]) for cell in page.all("td") if cell.get("data-value")]
    for score in table["fid_r"]:
        assert score in values
    assert all(header.get("scope") for header in page.all("th"))


def test_figures_say_what_they_show(page):
    charts = page.all("div", role="img")
    assert len(charts) == len(page.all("svg")) == 2 + 3  # cost, repetition; three scores of the ablation
    assert all(len(chart["aria-label"]) > 30 for chart in charts)
    labelled = {label["for"] for label in page.all("label")}
    assert {control["id"] for control in [*page.all("select"), *page.all("input")]} == labelled


def test_ids_are_unique(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_protocol_and_versions_are_told(finished, page):
    folder = finished / "runs" / read_table(finished / "results/table1.csv")["run"].iloc[0]
    environment = json.loads((folder / "environment.json").read_text())
    protocol = json.loads((folder / "metrics.json").read_text())["protocol"]
    for value in (*environment.values(), protocol["extractor_sha256"], folder.name):
        assert str(value) in page.text


def test_what_is_not_finished_is_named_with_its_command(page):
    assert "experiment=ablate_dilation" in page.text
    assert not page.all("section", id="ablate_dilation")
    assert page.all("section", id="ablate_tau")


def test_large_images_are_reduced(tmp_path):
    Image.fromarray(np.zeros((300, 600, 3), np.uint8)).save(tmp_path / "large.png")
    uri = embed_image(tmp_path / "large.png", 100 * 200)
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (200, 100)


def test_without_results_the_command_is_named(tmp_path):
    with pytest.raises(ValueError, match="no finished table in .*run make reproduce-table first"):
        report.main([f"paths.results={tmp_path}"])


def test_experiments_are_found_by_names_that_are_composed(tmp_path):
    """A name may hold that of a model, or be the command line's."""
    (tmp_path / "field_mine.csv").touch()

    def found(name, *overrides):
        return report.may_be_finished(CONF / f"experiment/{name}.yaml", tmp_path, overrides)

    assert [found("field"), found("ablate_tau"), found("paper")] == [True, False, False]
    assert found("ablate_tau", "+experiment.name=mine")


def test_a_run_that_is_gone_is_named(finished, tmp_path):
    table = read_table(finished / "results/table1.csv")
    folder = tmp_path / table["run"].iloc[0]
    with pytest.raises(FileNotFoundError, match=f"no run at {folder}: set paths.runs, or run it again"):
        run_folders(table, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is not a table"), ("model,size\n", "has no method, n, resolution, run, scores, variant: create it")],
)
def test_a_damaged_table_is_named(tmp_path, text, message):
    (tmp_path / "ablate_tau.csv").write_text(text)
    with pytest.raises(ValueError, match=f"ablate_tau.csv {message}"):
        read_table(tmp_path / "ablate_tau.csv")
