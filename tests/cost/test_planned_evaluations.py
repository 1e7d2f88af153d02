"""U-Net evaluations as planned against those counted while sampling, for every method."""

from contextlib import nullcontext

import pytest

from baselines.method import Request
from experiments.cost import planned as planned_module
from experiments.cost import planning as plan_module
from experiments.cost.counting import Cost, counted_evaluations
from experiments.cost.planned import read_planned
from experiments.cost.planning import plan_run, planned_calls, planned_evaluations
from experiments.setup.architecture import Model
from experiments.setup.compose import compose_config
from experiments.setup.models import load_pipeline
from experiments.setup.runs import build_run
from tests.test_methods import METHODS
from tests.tiny import tiny_overrides

pytestmark = pytest.mark.usefixtures("own_convolutions")


@pytest.fixture
def tiny(pipe_folder, tmp_path):
    return tiny_overrides(pipe_folder, tmp_path)


DAMPED = ["scalecrafter.noise_damped_dilation={mid_block: 2}", "scalecrafter.noise_damped_tau=30"]
VARIANTS = {
    **{name: [f"method={name}", *options] for name, options in METHODS.items()},
    "windows that do not fill a call": [
        "method=multidiffusion",
        "multidiffusion.stride=4",
        "multidiffusion.window_batch=4",
    ],
    "windows that do not need a call": ["method=multidiffusion", "multidiffusion.window_batch=99"],
    "synchronised in some steps": ["method=syncdiffusion", "syncdiffusion.sync_steps=2", "multidiffusion.stride=4"],
    "anchor alone": ["method=syncdiffusion", "resolution=x1"],
    "noise-damped for some steps": ["method=scalecrafter", *DAMPED],
    "without guidance": ["method=direct", "sampler.guidance_scale=1.0"],
    "nothing to damp without guidance": ["method=scalecrafter", *DAMPED, "sampler.guidance_scale=1.0"],
    "two branches without guidance": ["method=fouriscale", "sampler.guidance_scale=1.0"],
}


def open_with_weights(source):
    return Model(source, load_pipeline(source), "float32", "")


@pytest.fixture
def counting_only(monkeypatch):
    """Plans without FLOPs and memory, which take longest, and from calls of the tiny pipeline itself, which are faster
    than those without content.
    """

    def cost(call, unet):
        with counted_evaluations(unet) as counted:
            call()
        return Cost(0, 0, sum(counted))

    monkeypatch.setattr(planned_module, "open_architecture", open_with_weights)
    monkeypatch.setattr(plan_module, "fake", nullcontext())
    monkeypatch.setattr(plan_module, "cost_of", cost)
    monkeypatch.setattr(plan_module, "plain_unet_cost", plan_module.plain_unet_cost.__wrapped__)
    monkeypatch.setattr(plan_module, "decoding_cost", lambda *args: Cost(0, 0, 0))


# Their calls are compared with those that are made in tests/baselines (test_following, test_demofusion); SDEdit's are
# the same in both spaces.
ELSEWHERE = {"deep_shrink", "hidiffusion", "fouriscale", "two branches without guidance", "demofusion", "sdedit_rgb"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in ELSEWHERE else ()) for name in VARIANTS]
)
def test_planned_evaluations_are_those_counted_while_sampling(tiny, counting_only, name):
    overrides = [*tiny, *VARIANTS[name], "sampler.steps=3", "prompts.limit=3", "batch_size=2"]
    planned, run = read_planned(overrides), build_run(compose_config(overrides))
    request, pipe = Request(["a", "b"], [1, 2], run.height, run.width, run.sampler), run.model.load()
    with counted_evaluations(pipe.unet) as counted:
        run.method.generate(pipe, request)
    assert plan_run(planned).evaluations == pytest.approx(sum(counted) / 2)
    assert sum(
        planned_evaluations(planned.workload, calls) for calls in planned_calls(planned.workload, 2)
    ) == pytest.approx(sum(counted))
    assert sum(calls.times for calls in run.method.calls(run.model.shape, request)) <= len(counted)
