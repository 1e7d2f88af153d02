"""The schedule computed from timesteps against the paper's rule, which counts steps."""

import itertools
import math

from diffusers import DDIMScheduler

from scalecrafter.schedule import factors_at, reference_step
from scalecrafter.settings import Settings, available_settings

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
        assert indices[-1] <= 50


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
