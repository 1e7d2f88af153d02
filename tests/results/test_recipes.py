"""The recipe of each row: columns for what differs, one line for what is shared, always in the CSV."""

import pandas as pd
import pytest

from experiments.results.field.recipes import RECIPE, recipe_note, recipe_of, varied
from experiments.results.html_table import table_view
from experiments.results.reading import read_table
from experiments.results.score_table import latex, note, readable
from experiments.setup.compose import compose_config
from experiments.setup.grid import read_grid
from experiments.setup.runs import build_run
from experiments.setup.schema import CONF
from tests.tiny import tiny_overrides

FREEU = "{b1: 1.1, b2: 1.2, s1: 0.6, s2: 0.4}"


@pytest.fixture
def table(finished):
    return read_table(finished / "results/table1.csv")


def test_what_all_share_is_a_line_and_what_differs_a_column(table):
    assert varied(table) == {}
    assert set(RECIPE) < set(table)
    assert "Recipe of all rows: scheduler DDIM, steps 2, guidance 7.5, eta 0, negative prompt none" in note(table)
    assert "scheduler" not in readable(table)
    other = table.assign(scheduler=["Euler", *["DDIM"] * (len(table) - 1)], eta=[0.5] + [0.0] * (len(table) - 1))
    shown = readable(other)
    assert list(shown["scheduler"])[:2] == ["Euler", "DDIM"]
    assert list(shown["eta"])[:2] == ["0.5", "0"]
    assert "scheduler" not in recipe_note(other)
    assert latex(shown).splitlines()[0].startswith(r"\begin{tabular}{llllr")
    assert table_view(other)["groups"][0]["rows"][0]["cells"]["scheduler"]["text"] == "Euler"


def test_real_images_have_no_recipe(table):
    """They do not make a column of what the methods share, and have empty cells in one that there is."""
    table = table.assign(method=["real", *table["method"][1:]], scheduler=["PNDM"] + ["DDIM"] * (len(table) - 1))
    assert varied(table) == {}
    table.loc[1, "scheduler"] = "Euler"
    assert list(readable(table)["scheduler"])[:2] == ["", "Euler"]


def test_tables_from_before_have_none(table):
    old = table.drop(columns=list(RECIPE))
    assert "Recipe" not in note(old)
    assert set(readable(old)) == set(readable(table))


def recipe(save_pipeline, tmp_path, family, *overrides):
    return recipe_of(build_run(compose_config([*tiny_overrides(save_pipeline(family), tmp_path), *overrides])))


def test_cells_say_what_acts(save_pipeline, tmp_path):
    """The sampler's, or else the method's own."""

    def of(family, *overrides):
        return recipe(save_pipeline, tmp_path, family, *overrides)

    plain = of("tiny", "method=direct")
    assert (plain["scheduler"], plain["negative_prompt"], plain["freeu"]) == ("DDIM", "none", "none")
    assert plain["size_condition"] == "none"
    given = of(
        "tiny", "method=direct", "sampler.scheduler=euler", "sampler.negative_prompt=x", f"sampler.freeu={FREEU}"
    )
    assert (given["scheduler"], given["negative_prompt"]) == ("EulerDiscrete", "x")
    assert given["freeu"] == "1.1 1.2 0.6 0.4 (diffusers)"
    assert of("tiny", f"scalecrafter.freeu={FREEU}")["freeu"] == "1.1 1.2 0.6 0.4 (diffusers)"
    assert of("tiny", "method=freescale", "method.object.freeu=true")["freeu"] == "the method's"
    told = [of("sdxl", f"method={name}")["size_condition"] for name in ("direct", "freescale", "sdedit", "fouriscale")]
    assert told == ["target", "base", "target", "base"]
    assert of("sdxl", "method=fouriscale", "sampler=common", "sampler.steps=2")["size_condition"] == "stage"


METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml") if not path.stem.startswith("real"))


def test_the_field_compares_every_method():
    """But Stable Diffusion's upscaler, which is another model, and controls other than the floor."""
    for name in ("field", "field_as_published"):
        methods = {
            dict(part.split("=", 1) for part in row.overrides)["method"]
            for row in read_grid([f"experiment={name}"]).rows
        }
        assert methods == {*METHODS, "real"} - {"upscale_sd"}
    assert read_grid(["experiment=field_as_published"]).plot["against"] == read_grid(["experiment=field"]).name


@pytest.mark.parametrize("model", ["scenes", "sdxl"])
def test_recipes_of_the_field(model):
    """One for all, or each its own; on scenes only what applies to any model."""

    def recipes(name, *methods):
        lines = [[f"experiment={name}", f"model={model}", f"method={each}", "resolution=x4"] for each in methods]
        samplers = [compose_config(line).sampler for line in lines]
        return {each: {key: s[key] for key in s} for each, s in zip(methods, samplers, strict=True)}

    common = recipes("field", "direct", "freescale")
    own = recipes("field_as_published", *("freescale", "demofusion", "fouriscale", "diffusehigh", "megafusion"))
    assert common["direct"] == common["freescale"]
    assert common["direct"]["scheduler"] == "ddim"
    assert own["freescale"]["scheduler"] == own["demofusion"]["scheduler"] == "euler"
    assert own["fouriscale"]["eta"] == 1
    for sampler in own.values():
        assert sampler["steps"] == (15 if model == "scenes" else 50)
    if model == "scenes":
        assert all(s["negative_prompt"] is None and s["freeu"] is None for s in own.values())
        assert {s["guidance_scale"] for s in own.values()} == {5.0}
    else:
        assert own["freescale"]["freeu"]["form"] == "scalecrafter"
        assert own["demofusion"]["negative_prompt"].startswith("blurry, ugly")
        assert (own["diffusehigh"]["guidance_scale"], own["megafusion"]["guidance_scale"]) == (5.0, 7.0)


def test_the_field_has_prompts_that_two_cores_can_afford():
    limits = [compose_config(["experiment=field", f"resolution={size}"]).prompts.limit for size in ("x4", "x16")]
    assert limits == [16, 8]
    assert pd.Series(limits).min() >= 3
