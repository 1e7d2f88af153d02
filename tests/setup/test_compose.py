"""Composition: every option composes, and what is wrong is one line that names it, before anything is sampled."""

from collections import defaultdict
from itertools import zip_longest

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.setup.compose import VERSION_BASE, compose_config, plain_values
from experiments.setup.runs import base_run, build_run, resolve_limit
from experiments.setup.schema import CONF
from tests.cost.test_planned_evaluations import ELSEWHERE as PLANNED_ELSEWHERE
from tests.test_methods import METHODS
from tests.tiny import tiny_overrides


@pytest.fixture
def tiny(pipe_folder, tmp_path):
    return tiny_overrides(pipe_folder, tmp_path)


def test_every_option_of_every_group_composes():  # experiments: test_grid.py
    """One of each group at a time, for groups do not depend on each other; but methods that are planned by default."""
    options, planned = defaultdict(list), {"method": METHODS.keys() - PLANNED_ELSEWHERE}
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.parent.relative_to(CONF).as_posix()
        if group in (".", "experiment") or group.startswith("hydra") or path.stem in planned.get(group, ()):
            continue
        options[group].append(f"{group}={path.stem}")
    assert options
    for chosen in zip_longest(*options.values()):
        plain_values(compose_config([option for option in chosen if option]))


LINES = [
    ["experiment=ablate_tau", "sampler.steps=${model.steps}", "paths.runs='a b'", "seed=1", "model=folder", "seed=2"],
    ["model={steps: 3}", "model.steps=4", "+method.object.more=[1,{a: null}]", "scalecrafter/freeu=scalecrafter"],
    ["scalecrafter.dilation={down_blocks.0: 2, mid_block: 3.5}", "metrics.also=[kid_subsets]", "hydra.verbose=true"],
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_configurations_are_those_that_hydra_composes(line):
    """However their rows share what does not differ."""
    with initialize_config_dir(str(CONF), version_base=VERSION_BASE):
        expected = compose("config", line)
    composed = compose_config(line)
    assert composed == expected
    assert OmegaConf.is_struct(composed)
    own = [override for override in line if not override.startswith("seed")]
    assert compose_config([*own, "seed=7"]) == OmegaConf.merge(expected, {"seed": 7})


ERRORS = [
    ("method=nope", "Could not find 'method/nope' Available options in 'method': .*direct"),
    ("resolution=x5", "Available options in 'resolution': x1 x16 x4 x6_25 x8"),
    ("resolution=2048", "Could not find 'resolution/2048' Available options in 'resolution': x1 x16 x4"),
    ("sampler.guidance_scale=nan", "sampler.guidance_scale is a number of at least 0, not nan"),
    ("sampler.guidance_scale=-1", "sampler.guidance_scale is a number of at least 0, not -1"),
    ("sampler.eta=3", "sampler.eta is a number from 0 to 1, not 3"),
    ("a b", "not an override, as KEY=VALUE: a b"),
    ("promts.limit=3", "Could not override 'promts.limit'"),
    ("sampler.steps=abc", "Value 'abc' of type 'str' could not be converted to Integer full_key: sampler.steps"),
    ("scalecrafter.tau=2.5", "could not be converted to Integer full_key: scalecrafter.tau"),
    ("multidiffusion.circular=maybe", "is not a valid bool .*full_key: multidiffusion.circular"),
    ("prompts.limit=many", "prompts.limit is a number, null, paper or 1k, not 'many'"),
    ("prompts.limit=null", "prompts.limit"),
    ("prompts.limit=0", "at least 1"),
    ("prompts=file", "prompts.path"),
    ("model.path=null", "model.path is missing"),
    ("model.path=/nowhere", "no pipeline folder at /nowhere"),
    ("model.dtype=float31", "must be auto"),
    ("batch_size=none", "batch_size gives none"),
    ("shard=3/3", "shard is I/N with I from 0 to N - 1"),
    ("resolution.scale_width=2.1", "resolution.scale_width gives 67.2"),
    ("resolution.scale_width=2.0625", "divisible by 4.*nearest size is 64x64"),
    ("scalecrafter.settings=nope", "nope"),
    ("scalecrafter.dilation={mid_blok: 2}", "mid_blok"),
    ("method=syncdiffusion syncdiffusion.anchor=last", "method syncdiffusion: .*anchor"),
    ("method=multidiffusion multidiffusion.stride=9", "stride"),
    ("method=upscale_sd upscale_sd.model=/nowhere", "no x4 upscaler at '/nowhere'"),
]


@pytest.mark.parametrize(("change", "message"), ERRORS, ids=[change for change, _ in ERRORS])
def test_wrong_options_are_one_line(tiny, change, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises((ValueError, OSError), match=message) as caught:
        build_run(compose_config([*tiny, *change.split(" ")] if change.startswith("method=") else [*tiny, change]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", [["seed=3"], ["sampler=paper", "method=direct"]], ids=["values", "groups"])
def test_what_is_done_to_a_configuration_does_not_reach_the_next(line):
    first = compose_config(line)
    before = first.seed
    first.seed, first.model.name = 4, "other"
    again = compose_config(line)
    assert (again.seed, again.model.name) == (before, "scenes")


def test_paper_limit_depends_on_the_size():
    assert [resolve_limit("paper", side, side) for side in (512, 1024, 1025)] == [30_000, 30_000, 10_000]
    assert resolve_limit(7, 64, 64) == 7
    assert resolve_limit(None, 64, 64) is None


def test_scenes_have_fewer_prompts_at_sizes_that_cost_more(tiny):
    """Of nested sets, and those of a run are those of its base samples; other prompts keep their own number."""
    tiny = [line for line in tiny if not line.startswith("prompts.limit")]
    runs = {
        name: build_run(compose_config([*tiny, f"resolution={name}"])) for name in ("x1", "x4", "x6_25", "x8", "x16")
    }
    assert {name: len(run.prompts) for name, run in runs.items()} == {
        "x1": 32,
        "x4": 32,
        "x6_25": 24,
        "x8": 24,
        "x16": 16,
    }
    for run in runs.values():
        assert list(run.prompts) == list(runs["x1"].prompts[: len(run.prompts)])
        assert base_run(run).prompts == run.prompts
        assert base_run(run).folder == base_run(runs["x1"]).folder
    limits = [compose_config([line, "resolution=x16"]).prompts.limit for line in ("prompts=demo", "experiment=paper")]
    assert limits == [None, None]
    assert compose_config(["experiment=ablate_tau", "resolution=x16"]).prompts.limit == 8


def test_paper_sampler_has_the_papers_steps_and_each_methods_noise():
    found = [compose_config(["sampler=paper", f"method={name}"]).sampler for name in ("direct", "multidiffusion")]
    assert [(each.steps, each.eta) for each in found] == [(50, 1.0), (50, 0.0)]
    assert compose_config([]).sampler.steps == compose_config([]).model.steps
