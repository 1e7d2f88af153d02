"""Charts show what the table holds, galleries what the runs hold; files for screen and paper."""

from io import BytesIO

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from experiments.results.galleries import (
    GAP,
    HEIGHT,
    LINE,
    REGION,
    gallery_columns,
    jpeg,
    shared_records,
    write_grid,
    write_zoom,
)
from experiments.results.plots import ablation, charts, cost_frontier, pareto, repetition_by_resolution
from experiments.results.reading import CONTROLS, read_table
from experiments.results.style import COLUMN, INK, METHODS, chart_svg, method_style, save_chart
from experiments.setup.schema import CONF


@pytest.fixture
def table(finished):
    return read_table(finished / "results/table1.csv")


def made_up(**columns):
    """A table of two sizes and two methods with made-up scores."""
    rows = {"resolution": ["x4", "x4", "x16", "x16"], "size": ["64x64"] * 2 + ["128x128"] * 2}
    rows |= {"method": ["direct", "scalecrafter"] * 2, "variant": [""] * 4, "n": [64] * 4}
    scores = {
        "fid_r": [4.0, 1.0, 6.0, 2.0],
        "kid_r": [4.0, 1.0, 6.0, 2.0],
        "repetition": [2.0, 0.1, 5.0, 0.2],
        "seconds_per_image": [1.0, 2.0] * 2,
    }
    errors = {f"{name}_se": [0.1] * 4 for name in ("fid_r", "kid_r", "repetition")}
    return pd.DataFrame(rows | scores | errors | columns)


def plotted(axes):
    """{label: points} of the error bars in a panel."""
    return {c.get_label(): np.column_stack(c.lines[0].get_data()).tolist() for c in axes.containers}


def test_saving_a_chart_says_nothing(table, tmp_path, caplog):
    """At Hydra's level of logging the fonts of a PDF would be reported glyph by glyph."""
    caplog.set_level("INFO")
    saved = save_chart(repetition_by_resolution(table), tmp_path / "chart")
    assert [path.suffix for path in saved] == [".png", ".pdf"]
    said = {record.name.partition(".")[0] for record in caplog.records}
    assert not said & {"matplotlib", "fontTools", "experiments"}  # others may: what is collected as garbage meanwhile


def test_every_method_has_a_colour_and_a_marker_of_its_own():
    assert {path.stem for path in (CONF / "method").glob("*.yaml")} <= set(METHODS)
    for values in zip(*METHODS.values(), strict=True):
        assert len(set(values)) == len(METHODS)
    assert method_style("somebody's own") == method_style("somebody's own")


@pytest.mark.parametrize("method", METHODS)
def test_every_marker_is_drawn_in_its_colour(method):
    """Markers that are nothing but an edge are not white on white."""
    figure = Figure(figsize=(1, 1), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.plot(0, 0, linestyle="", **method_style(method))
    FigureCanvasAgg(figure).draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3].reshape(-1, 3)
    assert np.abs(drawn - 255 * np.array(to_rgb(method_style(method)["color"]))).max(axis=1).min() < 40


def luminance(colour):
    """Relative luminance as the Web Content Accessibility Guidelines define it."""
    values = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(colour)]
    return float(np.dot(values, (0.2126, 0.7152, 0.0722)))


def test_colours_are_legible_on_light_and_dark_pages():
    for colour, _ in METHODS.values():
        value = luminance(colour)
        assert 1.05 / (value + 0.05) > 2, colour
        assert (value + 0.05) / (luminance("#14171b") + 0.05) > 3, colour


def test_one_method_alone_has_a_panel_and_controls_alone_have_none():
    alone = made_up().query("resolution == 'x4' and method == 'direct'")
    (axes,) = charts(alone, None)["cost"].axes
    assert plotted(axes) == {"direct": [[1.0, 4.0]]}
    assert "cost" not in charts(made_up(method=["real", "real_grid"] * 2), None)


def test_only_the_shipped_controls_are_controls():
    assert {path.stem for path in (CONF / "method").glob("real*.yaml")} == set(CONTROLS)
    methods = cost_frontier(made_up(method=["real_esrgan", "scalecrafter"] * 2))
    assert set(plotted(methods.axes[0])) == {"real esrgan", "scalecrafter"}


def test_the_frontier_holds_what_nothing_beats_in_both():
    assert pareto([(1, 5), (2, 3), (2, 4), (3, 3), (4, 1)]) == [(1, 5), (2, 3), (4, 1)]
    assert pareto([(1, 1), (1, 1)]) == [(1, 1)]


def test_charts_draw_the_numbers_of_the_table():
    figure = cost_frontier(made_up())
    assert plotted(figure.axes[1]) == {"direct": [[1.0, 6.0]], "scalecrafter": [[2.0, 2.0]]}
    assert to_hex(figure.axes[0].containers[0].lines[0].get_color()) == METHODS["direct"][0]
    lines = plotted(repetition_by_resolution(made_up()).axes[0])
    assert [y for _, y in lines["direct"]] == [2.0, 5.0]
    assert [x for x, _ in lines["direct"]] == pytest.approx([64**2, 128**2], rel=0.05)


def test_an_ablation_has_a_line_for_all_that_varies_beside_its_number():
    variants = ["fixed true, radius 1", "fixed true, radius 2.5", "fixed false, radius 1", "fixed false, radius 2"]
    table = made_up(variant=variants, resolution=["x4"] * 4, method=["scalecrafter"] * 4)
    (panel,) = ablation(table, {"x": "radius", "y": ["fid_r"]}).axes
    assert plotted(panel) == {"fixed true": [[1.0, 4.0], [2.5, 1.0]], "fixed false": [[1.0, 6.0], [2.0, 2.0]]}


def test_variants_without_numbers_have_a_line_each():
    table = made_up(variant=["inner", "outer"] * 2, method=["scalecrafter"] * 4)
    panels = ablation(table, {"y": ["fid_r", "repetition"]}).axes
    assert [label.get_text() for label in panels[0].get_yticklabels()] == [
        "x4: inner",
        "x4: outer",
        "x16: inner",
        "x16: outer",
    ]
    assert [c.lines[0].get_data()[0][0] for c in panels[1].containers] == [2.0, 0.1, 5.0, 0.2]


def test_charts_without_data_are_left_out():
    assert list(charts(made_up(), None)) == ["cost", "repetition"]
    assert list(charts(made_up(seconds_per_image=[np.nan] * 4), None)) == ["repetition"]


def test_charts_fit_a_column(table):
    for figure in charts(table, None).values():
        assert figure.get_size_inches()[0] == COLUMN
        assert min(text.get_fontsize() for text in figure.findobj(matplotlib.text.Text)) >= 5.8


def test_a_chart_in_a_page_takes_the_colours_of_the_page(table):
    figure = cost_frontier(table)
    one, other = chart_svg(figure, "one"), chart_svg(figure, "other")
    assert "currentColor" in one
    assert INK not in one
    assert "http" not in one.replace("http://www.w3.org/", "")
    ids = [{part.split('"')[0] for part in svg.split(' id="')[1:]} for svg in (one, other)]
    assert not ids[0] & ids[1]


def test_files_of_a_finished_experiment(finished):
    """Each chart as PNG and PDF, images for each size; an ablation's carry its name."""
    stems = {f"{kind}_{size}" for kind in ("gallery", "zoom") for size in ("x4", "x16")}
    stems |= {"ablate_tau_x4", "ablate_tau_zoom_x4", "table1", "ablate_tau"}
    chart_files = {"table1_cost", "table1_repetition", "ablate_tau_plot"}
    written = {path.name for path in (finished / "results").iterdir()}
    assert {f"{stem}.png" for stem in stems | chart_files} == {name for name in written if name.endswith(".png")}
    assert {f"{stem}.pdf" for stem in chart_files} == {name for name in written if name.endswith(".pdf")}
    width = Image.open(finished / "results/table1_cost.png").width / 300
    assert COLUMN - 0.3 < width < COLUMN + 0.3


def test_the_same_region_of_each_method_is_enlarged(finished, table, tmp_path):
    """For every method the zoom shows, in its place, a crop of the run's own image."""
    columns = gallery_columns(table, finished / "runs")["x16"]
    write_zoom(columns, tmp_path / "zoom.png", prompts=2)
    zoom = Image.open(tmp_path / "zoom.png")
    for number, column in enumerate(columns):
        record = shared_records([column], 2)[1][0]
        height, width, (top, left, side) = record.height, record.width, REGION
        shares = ((left, width), (top, height), (left + side, width), (top + side, height))
        box = [round(share * pixels) for share, pixels in shares]
        crop = Image.open(column.folder / record.file).crop(box).resize((HEIGHT, HEIGHT), Image.Resampling.NEAREST)
        left, top = number * (HEIGHT + GAP), 2 * LINE + 3 * (HEIGHT + GAP)
        assert np.array_equal(np.asarray(zoom.crop((left, top, left + HEIGHT, top + HEIGHT))), np.asarray(crop))


def test_titles_stay_within_their_columns(tmp_path):
    """Long ones take several lines: between the columns nothing is drawn, and the images begin below all of them."""
    images = [Image.new("RGB", (HEIGHT, HEIGHT), colour) for colour in ("red", "blue")]
    titles = ["noise_damped_tau 20, guidance_scale 7.5, dilation levels 2 to 4 by 4", "word" * 40]
    write_grid(titles, [("a prompt", [images])], tmp_path / "grid.png")
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    top = int(np.flatnonzero((grid[:, 5] == (255, 0, 0)).all(axis=1))[0])
    assert top >= 3 * LINE
    assert (grid[:, HEIGHT : HEIGHT + GAP] == 255).all()
    for column, lines in ((slice(0, HEIGHT), 3), (slice(HEIGHT + GAP, None), 1)):
        drawn = (grid[: lines * LINE, column] < 128).any(axis=(1, 2))
        assert all(drawn[line * LINE : (line + 1) * LINE].any() for line in range(lines))
    assert (grid[LINE:top, HEIGHT + GAP :] == 255).all()


def test_a_jpeg_is_as_wide_as_it_may_be_and_keeps_its_picture():
    picture = Image.new("RGBA", (400, 200), "red")
    picture.paste("blue", (200, 0, 400, 200))
    for width, size in ((1000, (400, 200)), (100, (100, 50))):
        shown = Image.open(BytesIO(jpeg(picture, width)))
        assert (shown.format, shown.size) == ("JPEG", size)
        assert np.allclose(shown.getpixel((size[0] // 4, 10)), (255, 0, 0), atol=4)
        assert np.allclose(shown.getpixel((size[0] * 3 // 4, 10)), (0, 0, 255), atol=4)
