"""The preview and the picture of the two stages on a tiny pipeline: what is where, and what is left out and why."""

import numpy as np
import pytest
from PIL import Image

from baselines.direct import Direct
from baselines.method import Request
from experiments.demo import preview, two_stage
from experiments.demo.preview import Entry, Pace, in_order, main, planned_work, read_entries
from experiments.demo.sheet import BETWEEN, GAP, LARGEST, LINE, TEXT, Block, Cell, draw_sheet, wrapped, write_picture
from experiments.prompts import prompt_seed
from experiments.setup.compose import compose_config
from experiments.setup.runs import base_run, build_run
from tests.tiny import tiny_overrides

TWO = ["method=direct,scalecrafter", "resolution=x4,x16"]


@pytest.fixture
def tiny(pipe_folder, tmp_path):
    """Settings that fit, at both sizes."""
    return [*tiny_overrides(pipe_folder, tmp_path), "prompts.limit=1"]


@pytest.fixture
def shown(monkeypatch):
    """The blocks of the pictures that are drawn."""
    found = []

    def draw(blocks, *arguments):
        found.append(blocks)
        return draw_sheet(blocks, *arguments)

    monkeypatch.setattr(preview, "draw_sheet", draw)
    monkeypatch.setattr(two_stage, "draw_sheet", draw)
    return found


def sampled(overrides, text=None):
    """What the benchmark samples for the first prompt, with the stock pipeline."""
    run = build_run(compose_config(overrides))
    seed = prompt_seed(run.seed, run.prompts[0].id)
    request = Request([text or run.prompts[0].text], [seed], run.height, run.width, run.sampler)
    return Direct().generate(run.model.load(), request)[0]


def test_every_method_is_there_at_both_sizes(tiny, tmp_path, shown, capsys):
    out = tmp_path / "picture.jpg"
    main(["--out", str(out), "--budget", "600", *tiny, *TWO])
    assert capsys.readouterr().out == f"{out}: 4 of 4 images\n"
    assert out.stat().st_size <= LARGEST
    (base, *blocks) = shown[0]
    assert [block.title for block in blocks] == ["direct", "scalecrafter"]
    assert np.array_equal(base.cells[0].image, sampled([*tiny, "method=direct", "resolution=x1"]))
    for block in blocks:
        assert [cell.image.size for cell in block.cells] == [(64, 64), (128, 128)]
        assert [cell.text.split(" · ")[:2] for cell in block.cells] == [["x4", "8 evals"], ["x16", "32 evals"]]
    for cell, resolution in zip(blocks[0].cells, ("x4", "x16"), strict=True):
        assert np.array_equal(cell.image, sampled([*tiny, "method=direct", f"resolution={resolution}"]))
        other = next(c for c in blocks[1].cells if c.image.size == cell.image.size)
        assert not np.array_equal(other.image, cell.image)


def test_prompt_and_seed_are_those_asked_for(tiny, tmp_path, shown):
    options = [*tiny, "method=direct", "resolution=x4"]
    main(["--out", str(tmp_path / "a.png"), "--prompt", "another one", "--seed", "5", *options])
    assert np.array_equal(shown[0][1].cells[0].image, sampled([*options, "seed=5"], "another one"))


def test_what_exceeds_the_budget_is_left_out_with_its_reason(tiny, tmp_path, shown, monkeypatch):
    """If direct inference at the smaller size took a hundred seconds."""
    monkeypatch.setattr(Pace, "seconds", lambda self, entry: 100 * entry.work / 8)
    options = ["resolution=x4,x16", "method=direct,upscale,scalecrafter"]
    main(["--out", str(tmp_path / "a.jpg"), "--budget", "250", *tiny, *options])
    texts = {block.title: [cell.text for cell in block.cells] for block in shown[0]}
    images = {block.title: [cell.image is not None for cell in block.cells] for block in shown[0]}
    assert images == {
        "base sample": [True],
        "direct": [True, False],  # 400 s at the larger size
        "scalecrafter": [True, False],
        "upscale": [True, True],  # 25 s
    }
    assert texts["direct"][1] == "x16: not sampled, 32 evals, about 400 s"


def test_cheapest_first_after_direct_and_scalecrafter_and_smaller_sizes_first(tiny):
    entries = read_entries(["experiment=field", *tiny, "method=multidiffusion,scalecrafter,upscale,real,direct"])
    order = [(entry.method, entry.resolution) for entry in in_order(entries)]
    pairs = [(name, size) for name in ("direct", "scalecrafter") for size in ("x4", "x16")]
    assert order == [*pairs, *((name, size) for size in ("x4", "x16") for name in ("upscale", "multidiffusion"))]


def test_pace_is_that_of_the_first_image_of_a_size(tiny):
    run = build_run(compose_config([*tiny, "method=direct"]))
    pace = Pace(base_run(run), 4.0)  # 2 evaluations
    small, large = Entry("direct", "x4", run, 8, 8), Entry("direct", "x16", run, 32, 32)
    assert pace.seconds(small) == pace.seconds(large) / 4 == 16
    pace.learn(small, 8.0)
    pace.learn(Entry("other", "x4", run, 8, 8), 80.0)
    assert pace.seconds(small) == 8
    assert pace.fitting([large, small, small], 39) == [large]
    assert pace.fitting([large, small, small], 31) == [small, small]


def test_a_call_that_is_differentiated_takes_five_times_as_long(tiny):
    """SyncDiffusion in two steps: nine windows of one evaluation, and the gradients of all but the anchor."""
    options = ["method=syncdiffusion", "multidiffusion.stride=4", "syncdiffusion.sync_steps=2", "resolution=x4"]
    assert planned_work(build_run(compose_config([*tiny, *options]))) == (2 * (9 + 8), 2 * (9 + 5 * 8))


def test_methods_that_refuse_say_why_in_their_place(tiny, tmp_path, shown):
    """Here the window has more steps than there are."""
    options = ["resolution=x4", "method=direct,scalecrafter", "scalecrafter.tau=99"]
    main(["--out", str(tmp_path / "a.jpg"), *tiny, *options])
    refused = shown[0][2].cells[0]
    assert refused.image is None
    assert "tau" in refused.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "a.gif"], "must be a file that ends in"),
        (["--prompt", " "], "--prompt is empty"),
        (["--budget", "0"], "--budget is a number of seconds"),
        (["method=nonsense"], "nonsense"),
        (["method=real"], "no method"),
        (["method=scalecrafter", "scalecrafter.tau=99"], "tau"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_sampled(tiny, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(preview, "sample", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        main([*tiny, *options])


def test_cells_stand_in_rows_of_columns():
    """Five blocks of two plain cells, four in a row: each colour is where it should be, and what is empty is grey."""
    colours = [(40 * i, 80, 160) for i in range(5)]
    blocks = [
        Block(str(i), [Cell(Image.new("RGB", (8, 8), c), "a"), Cell(None, "why not")]) for i, c in enumerate(colours)
    ]
    sheet = draw_sheet(blocks, ["caption"], 100, 4)
    width, height = 2 * 100 + GAP, 100 + 2 * LINE
    for i, colour in enumerate(colours):
        left, top = (i % 4) * (width + BETWEEN), (i // 4) * (height + BETWEEN // 2) + LINE
        assert sheet.getpixel((left + 50, top + 50)) == colour
        assert sheet.getpixel((left + 99, top + 99)) == colour
        assert sheet.getpixel((left + 100 + GAP, top)) == (236, 236, 236)
    assert sheet.size == (4 * (width + BETWEEN) - BETWEEN, 2 * (height + BETWEEN // 2) + LINE)


def test_texts_are_wrapped_to_their_width():
    text = "one two three four five six seven " * 9
    lines = wrapped(text, 200, 99)
    assert " ".join(lines) == " ".join(text.split())
    assert all(TEXT.getlength(line) <= 200 < TEXT.getlength(f"{line} three four") for line in lines[:-1])
    assert wrapped(text, 200, 2) == [lines[0], f"{lines[1]} …"]
    assert wrapped("", 200, 2) == []


def test_a_large_picture_is_compressed_to_the_limit(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    for kind in ("jpg", "png"):
        write_picture(Image.fromarray(noise), tmp_path / f"a.{kind}")
    assert (tmp_path / "a.jpg").stat().st_size <= LARGEST < (tmp_path / "a.png").stat().st_size


def test_two_stages_start_from_the_base_sample(tiny, tmp_path, shown):
    """The strength says how much of it is left; the plain second stage is diffusers' own."""
    for strength in ("0.25", "1"):
        two_stage.main(["--out", str(tmp_path / "a.jpg"), "--strength", strength, *tiny, "sampler.steps=4"])
    base = Image.fromarray(sampled([*tiny, "method=direct", "resolution=x1", "sampler.steps=4"]))
    direct = sampled([*tiny, "method=direct", "sampler.steps=4"])
    for blocks in shown:
        assert len(blocks) == 1
        assert np.array_equal(blocks[0].cells[0].image, base.resize((64, 64), Image.Resampling.LANCZOS))
        assert np.array_equal(blocks[0].cells[1].image, direct)
    weak, strong = ([np.asarray(cell.image).astype(int) for cell in blocks[0].cells] for blocks in shown)
    assert np.array_equal(weak[2], weak[3])  # below the steps in which anything is dilated
    assert not np.array_equal(strong[2], strong[3])
    assert not np.array_equal(weak[2], strong[2])
    with pytest.raises(ValueError, match="--strength"):
        two_stage.main(["--strength", "0", *tiny])
    with pytest.raises(ValueError, match="method=scalecrafter"):
        two_stage.main(["method=direct", *tiny])
