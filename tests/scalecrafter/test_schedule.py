"""The schedule computed from timesteps against the paper's rule, which counts steps."""

import itertools
import math
from types import SimpleNamespace

import pytest
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverSDEScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    PNDMScheduler,
)

from scalecrafter.pipeline import sampling_timesteps
from scalecrafter.schedule import factors_at, reference_step, training_timestep
from scalecrafter.settings import Settings, available_settings

pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")  # in diffusers

DDIM = DDIMScheduler(beta_schedule="scaled_linear", set_alpha_to_one=False, steps_offset=1)


def test_fifty_ddim_steps_map_to_their_index():
    DDIM.set_timesteps(50)
    assert [reference_step(t) for t in DDIM.timesteps.tolist()] == list(range(50))


def test_other_numbers_of_steps_stay_in_range_and_in_order():
    for steps in (1, 7, 25, 1000):
        DDIM.set_timesteps(steps)
        indices = [reference_step(t) for t in DDIM.timesteps.tolist()]
        assert indices == sorted(indices)
        assert indices[0] >= 0
        assert indices[-1] <= 49


def test_other_training_lengths_and_fractional_timesteps():
    assert reference_step(490, 500) == 1
    assert reference_step(999.0) == 0
    assert reference_step(979.99) == 1


def test_active_layers_and_factors_follow_the_papers_rule():
    """As in the public code: for step i < tau each listed layer has d, or max(ceil(d (tau - i) / tau), 2)."""
    DDIM.set_timesteps(50)
    for settings, base_pass in itertools.product(map(Settings.load, available_settings()), (False, True)):
        prefix = "noise_damped_" if base_pass else ""
        table, tau = getattr(settings, f"{prefix}dilation"), getattr(settings, f"{prefix}tau")
        for i, t in enumerate(DDIM.timesteps.tolist()):
            expected = {}
            if i < tau:
                for layer, d in table.items():
                    expected[layer] = max(math.ceil(d * ((tau - i) / tau)), 2) if settings.progressive else d
            assert settings.at(reference_step(t), base_pass=base_pass)[0] == expected


def test_progressive_values_of_the_public_code():
    """With tau = 35, d = 3 is 3 for i < 12, then 2; d = 4 is 4 for i < 9, 3 for 9 to 17, then 2; both end at 35."""
    steps = [factors_at({"three": 3, "four": 4}, 35, True, i) for i in range(36)]
    assert [step.get("three") for step in steps] == [3] * 12 + [2] * 23 + [None]
    assert [step.get("four") for step in steps] == [4] * 9 + [3] * 9 + [2] * 17 + [None]


def test_directions_shrink_separately_and_one_stays_one():
    table = {"both": (4, 2), "one": (1, 4), "none": 1}
    assert factors_at(table, 35, True, 0) == {"both": (4, 2), "one": (1, 4)}
    assert factors_at(table, 35, True, 20) == {"both": 2, "one": (1, 2)}
    assert factors_at(table, 35, False, 20) == {"both": (4, 2), "one": (1, 4)}


SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
OFFSET = (DDIMScheduler, DDPMScheduler, PNDMScheduler)  # Stable Diffusion uses these with an offset of one
TWICE = (HeunDiscreteScheduler, KDPM2DiscreteScheduler, KDPM2AncestralDiscreteScheduler)  # two calls for each step
EDM = [
    EDMEulerScheduler(sigma_min=0.03, sigma_max=14.6),
    EDMDPMSolverMultistepScheduler(sigma_min=0.03, sigma_max=14.6),
    EulerDiscreteScheduler(**SD, timestep_type="continuous", prediction_type="v_prediction"),
]


def accepted() -> list[type]:
    """All schedulers that Stable Diffusion's pipelines accept."""
    return sorted({*DDIM.compatibles, DDIMScheduler} - {EDMEulerScheduler}, key=lambda each: each.__name__)


def steps_of(scheduler, steps: int) -> list[int]:
    scheduler.set_timesteps(steps)
    return [reference_step(training_timestep(scheduler, t)) for t in scheduler.timesteps.tolist()]


@pytest.mark.parametrize("kind", accepted(), ids=lambda kind: kind.__name__)
def test_every_schedulers_steps_are_those_of_ddim(kind):
    """Within one of 50 steps; with 12, each in its own spacing, in order and from the first steps to the last."""
    if kind is DPMSolverSDEScheduler:
        pytest.importorskip("torchsde")
    options = {"steps_offset": 1} if kind in OFFSET else {}
    scheduler = kind(**SD, **options, **({"skip_prk_steps": True} if kind is PNDMScheduler else {}))
    found = steps_of(scheduler, 50)
    if kind in TWICE:
        assert len(found) == 99
        found = found[::2]
    elif kind is PNDMScheduler:
        del found[1]  # its second step is taken twice
    assert max(abs(step - index) for step, index in zip(found, range(50), strict=True)) <= 1
    few = steps_of(scheduler, 12)
    assert few == sorted(few)
    assert few[0] <= 4
    assert 45 <= few[-1] <= 49


@pytest.mark.parametrize("scheduler", EDM, ids=lambda each: type(each).__name__)
def test_schedulers_that_pass_the_logarithm_of_sigma_follow_the_noise_level(scheduler):
    """A call at the noise of training timestep t counts as a call at t, whatever the scheduler's own spacing."""
    found = steps_of(scheduler, 50)
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 49)
    alphas = DDIMScheduler(**SD).alphas_cumprod
    sigmas = ((1 - alphas) / alphas).sqrt()
    for t in (1, 81, 501, 981):
        assert training_timestep(scheduler, 0.25 * math.log(sigmas[t])) == pytest.approx(t, abs=1e-2)
    assert training_timestep(scheduler, 0.25 * math.log(80)) == 999  # more noise than there is in training


def test_schedulers_without_a_known_noise_level_are_refused():
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler"):
        training_timestep(FlowMatchEulerDiscreteScheduler(), 500.0)


def test_timesteps_are_asked_of_another_scheduler():
    """A scheduler that is in use keeps its own, and what it was used for changes nothing."""
    scheduler = DDIMScheduler(steps_offset=1)
    scheduler.set_timesteps(7)
    assert sampling_timesteps(SimpleNamespace(scheduler=scheduler), 5) == [801, 601, 401, 201, 1]
    assert len(scheduler.timesteps) == 7
