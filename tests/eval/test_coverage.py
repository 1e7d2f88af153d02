"""How often 95% intervals contain what they estimate, over new prompts, on Gaussian features.

Measured with 400 repetitions of 144 prompts, 16 dimensions and a fixed reference of 512 (Student's t, then 1.96):
FID_r 0.970, 0.955; KID_r 0.953, 0.943; FID_b 0.930, 0.922; KID_b 0.943, 0.922; paired differences of FID_r
0.970, 0.963, KID_r 0.978, 0.960 and KID_b 0.945, 0.922. With equal distributions KID is degenerate and its intervals
are too wide: 0.98 to 0.99.
"""

from collections import defaultdict

import numpy as np
import pytest

from eval.uncertainty import Estimate, estimate_fid, estimate_kid, interval_of
from tests.eval.helpers import features

PROMPTS, DIM, REFERENCE, REPETITIONS = 144, 16, 512, 300
Sample = tuple[float, float, int]  # value, standard error, groups (degrees of freedom + 1)


def alone(estimate: Estimate) -> Sample:
    return estimate.value, estimate.se, len(estimate.group_sizes)


def difference(first: Estimate, second: Estimate) -> Sample:
    return *first.minus(second), len(first.group_sizes)


def excess(estimate: Estimate, floor: Estimate) -> Sample:
    """Over a floor of other images than the prompts': two independent errors, each with 19 degrees of freedom."""
    return estimate.value - floor.value, float(np.hypot(estimate.se, floor.se)), 2 * 19 + 1


@pytest.fixture(scope="module")
def samples() -> dict[str, list[Sample]]:
    """Scores of two methods whose samples resemble the base samples of the same prompts, over new prompts."""
    reference = features(REFERENCE, DIM, seed=10**6)
    found: dict[str, list[Sample]] = defaultdict(list)
    for i in range(0, 4 * REPETITIONS, 4):
        base, one, two, real = (features(PROMPTS, DIM, seed=i + k) for k in range(4))
        x, z = base * 1.1 + 0.15 + 0.3 * one, base * 1.1 + 0.05 + 0.3 * two
        for name, estimate in (("fid", estimate_fid), ("kid", estimate_kid)):
            first, second, floor = (estimate(side, reference) for side in (x, z, real))
            first_b, second_b = (estimate(side, base, paired=True) for side in (x, z))
            found[f"{name}_r"].append(alone(first))
            found[f"{name}_b"].append(alone(first_b))
            found[f"{name}_r excess"].append(excess(first, floor))
            found[f"{name}_r difference"].append(difference(first, second))
            found[f"{name}_b difference"].append(difference(first_b, second_b))
            found[f"{name}_r of real images"].append(alone(floor))
    return found


def coverage(samples: list[Sample], truth: float) -> float:
    intervals = [interval_of(*sample) for sample in samples]
    return float(np.mean([low <= truth <= high for low, high in intervals]))


@pytest.mark.slow
def test_intervals_have_their_nominal_coverage(samples: dict[str, list[Sample]]) -> None:
    """Of the expected score at this number of prompts, estimated by the mean over all repetitions."""
    covered = {name: coverage(rows, float(np.mean([row[0] for row in rows]))) for name, rows in samples.items()}
    print({name: round(value, 3) for name, value in covered.items()})
    floors = {name: covered.pop(name) for name in list(covered) if name.endswith("real images")}
    assert {name: value for name, value in covered.items() if not 0.9 <= value <= 0.985} == {}
    assert min(floors.values()) >= 0.93  # conservative where both distributions are the same
