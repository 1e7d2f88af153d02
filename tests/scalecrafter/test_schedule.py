"""The schedule read from the timestep against the paper's rule counted in steps."""

import math

import pytest
from diffusers import DDIMScheduler

from scalecrafter.schedule import factors_at, reference_step
from scalecrafter.settings import available_settings, load_settings

DDIM = DDIMScheduler(beta_schedule="scaled_linear", set_alpha_to_one=False, steps_offset=1)


def test_fifty_ddim_steps_have_their_own_index():
    DDIM.set_timesteps(50)
    assert [reference_step(t) for t in DDIM.timesteps.tolist()] == list(range(50))


@pytest.mark.parametrize("steps", [1, 7, 20, 25, 100, 1000])
def test_other_numbers_of_steps_stay_in_range_and_in_order(steps):
    DDIM.set_timesteps(steps)
    indices = [reference_step(t) for t in DDIM.timesteps.tolist()]
    assert indices == sorted(indices)
    assert indices[0] >= 0
    assert indices[-1] <= 50


def test_other_training_lengths_and_fractional_timesteps():
    assert reference_step(490, 500) == 1
    assert reference_step(999.0) == 0
    assert reference_step(979.99) == 1


@pytest.mark.parametrize("name", available_settings())
def test_active_layers_and_factors_follow_the_papers_rule(name):
    """Reference code, restated: for step i < tau each listed layer has d, or max(ceil(d (tau - i) / tau), 2)."""
    settings = load_settings(name)
    DDIM.set_timesteps(50)
    passes = [(settings.dilation, settings.tau), (settings.noise_damped_dilation, settings.noise_damped_tau)]
    for table, tau in passes:
        for i, t in enumerate(DDIM.timesteps.tolist()):
            expected = {}
            if i < tau:
                for layer, d in table.items():
                    expected[layer] = max(math.ceil(d * ((tau - i) / tau)), 2) if settings.progressive else d
            assert factors_at(table, tau, settings.progressive, reference_step(t)) == expected


def test_progressive_values_known_from_the_reference():
    """tau = 35: d = 3 is 3 for i < 12, then 2; d = 4 is 4 for i < 9, 3 for 9 to 17, then 2; both end at 35."""
    steps = [factors_at({"three": 3, "four": 4}, 35, True, i) for i in range(36)]
    assert [step.get("three") for step in steps] == [3] * 12 + [2] * 23 + [None]
    assert [step.get("four") for step in steps] == [4] * 9 + [3] * 9 + [2] * 17 + [None]


def test_each_direction_shrinks_by_itself_and_one_stays_one():
    table = {"both": (4, 2), "one": (1, 4), "none": 1}
    assert factors_at(table, 35, True, 0) == {"both": (4, 2), "one": (1, 4)}
    assert factors_at(table, 35, True, 20) == {"both": 2, "one": (1, 2)}
    assert factors_at(table, 35, False, 20) == {"both": (4, 2), "one": (1, 4)}
