"""The numbers that the stored notebooks state are those of the pages, come out again, and bear out the prose."""

import os

import numpy as np
import pytest
import torch
from nbformat import NotebookNode

from baselines.method import Request
from experiments.prompts import prompt_seed
from experiments.scenes import WEIGHTS
from experiments.scenes.renderer.scene import Scene
from experiments.scenes.scene_counter import SceneCounter
from experiments.setup.compose import compose_config
from experiments.setup.models import ModelSource, load_pipeline
from experiments.setup.runs import build_run
from notebooks.store import DOCS, FOLDER, execute
from tests.notebooks.reading import PATHS, Table, numbers, shown_tables, stored, tables, value, words


def of_page(page: str) -> list[Table]:
    return tables((DOCS / page).read_text(encoding="utf-8"))


def by_method(table: Table) -> dict[tuple[str, str], dict[str, str]]:
    """Rows by resolution, without the size, and method."""
    return {(row["resolution"].split()[0], row["method"]): row for row in table}


# As on the pages, which were made from the same runs.


def test_the_table_is_that_of_the_page_of_results():
    shown, page = shown_tables("01")[0], of_page("results.md")[0]
    assert len(shown) == len(page)
    assert shown == [{title: row[title] for title in shown[0]} for row in page]


def test_the_ablations_are_those_of_their_page():
    *shown, best = shown_tables("02")
    assert shown == of_page("ablations.md")
    assert len(best) == len(shown) / 2


def test_repetition_is_that_of_the_page_of_results():
    page = by_method(of_page("results.md")[0])
    counted, summary = shown_tables("03")
    for row in counted:
        for resolution in ("x1", "x4", "x16"):
            expected = page.get((resolution, row["method"]), {}).get("repetition ↓", "")
            assert row[resolution] == expected.split(" ")[0]
    means = next(row for row in summary if row["objects"] == "mean")
    for method in set(means) - {"objects"}:
        assert value(means[method]) - 1 == pytest.approx(value(page["x16", method]["repetition ↓"]), abs=0.02)


def test_differences_are_those_of_the_scores():
    """Their errors are of pairs; the values are plain differences of two rows."""
    table, differences = shown_tables("01")
    rows = by_method(table)
    for row in differences:
        one, direct = (value(rows[row["resolution"], name][row["score"]]) for name in (row["method"], "direct"))
        assert value(row["minus direct"]) == pytest.approx(one - direct, abs=0.011)
        difference, error = map(float, row["minus direct"].split(" ± "))
        assert value(row["in standard errors"]) == pytest.approx(difference / error, rel=0.15, abs=0.15)


# Sampled and measured again, from the weights in the repository.


@pytest.fixture(scope="module")
def pipe():
    pipe = load_pipeline(ModelSource("scenes", path=str(WEIGHTS), dtype="float32"))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_first_prompt_of_your_own_method_has_as_many_objects_again(pipe):
    """By ScaleCrafter, beside it: the other image needs the method that the notebook writes, and is a slow test's."""
    options = ["model=scenes", "resolution=x4", "prompts.limit=1", "sampler.steps=15", "method=scalecrafter"]
    run = build_run(compose_config(options))
    (prompt,) = run.prompts
    row = next(row for row in shown_tables("04")[-1] if row["prompt"] == prompt.text)
    request = Request([prompt.text], [prompt_seed(run.seed, prompt.id)], run.height, run.width, run.sampler)
    objects = float(SceneCounter()(run.method.generate(pipe, request))[0])
    assert objects == pytest.approx(value(row["scalecrafter"]), abs=0.1)


def test_the_receptive_field_at_the_training_size_is_as_large_again(pipe):
    """With the field as a sum over draws of |d sum |prediction| / d latents|, and its radius by going outwards."""
    text = pipe.encode_prompt(Scene("car", "red", "beach", seed=1).caption, pipe.device, 1, False)[0].detach()
    for row in shown_tables("05")[0]:
        field = np.zeros((32, 32))
        for seed in range(2):
            latents = torch.randn(1, 12, 32, 32, generator=torch.Generator().manual_seed(seed)).requires_grad_()
            centre = pipe.unet(latents, int(row["timestep"]), text).sample[0, :, 16, 16]
            (gradient,) = torch.autograd.grad(centre.abs().sum(), latents)
            field += gradient[0].abs().sum(0).numpy()
        distance = np.array([[((y - 16) ** 2 + (x - 16) ** 2) ** 0.5 for x in range(32)] for y in range(32)])
        radius = next(r for r in np.unique(distance) if field[distance <= r].sum() >= field.sum() / 2)
        assert value(row["trained size"]) == pytest.approx(radius, abs=0.06)


# Executed again.


def compare(again: NotebookNode, before: NotebookNode) -> None:
    assert words(again) == words(before)
    assert numbers(again) == pytest.approx(numbers(before), rel=0.02, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("number", ["04", "05"])
def test_executing_it_again_gives_its_numbers(number):
    (path,) = (path for path in PATHS if path.stem.startswith(number))
    compare(execute(path), stored(number))


@pytest.mark.slow
@pytest.mark.skipif(
    not (os.environ.get("RUNS") and os.environ.get("RESULTS")),
    reason="needs the runs that the notebooks were stored from: make test-slow RUNS=DIR RESULTS=DIR",
)
@pytest.mark.parametrize("name", ["01_table", "02_ablations", "03_repetition"])
def test_executing_it_on_its_runs_again_gives_its_numbers(name):
    compare(execute(FOLDER / f"{name}.ipynb"), stored(name[:2]))
