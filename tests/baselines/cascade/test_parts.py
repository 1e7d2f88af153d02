"""Steps and noise levels of stages, against published timesteps and diffusers' own schedulers."""

import itertools
import math

import diffusers
import pytest
import torch

from baselines.cascade.parts import (
    Listed,
    Part,
    check_scheduler,
    consecutive,
    cosine,
    first_step,
    progress_of,
    rescheduled,
    restarts,
    steps_of,
)

STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
SCHEDULERS = [
    *("DDIM", "DDPM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete", "LMSDiscrete"),
    *("DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep", "KDPM2AncestralDiscrete", "LCM"),
]


def make(name, **changes):
    """A scheduler of Stable Diffusion."""
    own = {"set_alpha_to_one": False, "clip_sample": False} if name in ("DDIM", "LCM") else {}
    own |= {"clip_sample": False} if name == "DDPM" else {}
    return getattr(diffusers, f"{name}Scheduler").from_config(STABLE_DIFFUSION | own | changes)


def timesteps(part, scheduler):
    return [int(t) for t in part.trajectory(scheduler).timesteps]


def test_published_starts():
    """FreeScale and Self-Cascade 681, DiffuseHigh 281, RectifiedHR 381, 181 and 41, MegaFusion 181 and 81."""
    ddim = make("DDIM")
    starts = {0.3: 681, 0.7: 281, 0.6: 381, 0.8: 181, 0.94: 41, 0.9: 81}
    for progress, t in starts.items():
        assert first_step(ddim, 50, progress) == (981 - t) // 20
        assert timesteps(Part(50, first_step(ddim, 50, progress)), ddim)[0] == t
    assert [first_step(ddim, 25, p) for p in (0.3, 0.7, 0.6, 0.8, 0.94)] == [7, 17, 15, 20, 23]
    assert timesteps(restarts(ddim, 50, 0.7, 2)[1], ddim) == list(range(281, 0, -20))


def test_published_noise_levels():
    """DiffuseHigh's first five calls after the restart."""
    trajectory = Part(50, 35).trajectory(make("EulerDiscrete"))
    found = []
    for t in trajectory.timesteps[:5]:
        a, b = trajectory.levels(t)
        found.append(b / a)
        trajectory.step(torch.zeros(1), t, torch.zeros(1), 0.0, [])
    assert found == pytest.approx([0.7789, 0.7247, 0.6726, 0.6225, 0.5741], abs=1e-4)


def test_schedule_is_cut_without_gap_or_overlap():
    ddim = make("DDIM")
    parts = consecutive(ddim, 50, [0.8, 0.94])
    assert [len(timesteps(part, ddim)) for part in parts] == [40, 7, 3]
    assert sum((timesteps(part, ddim) for part in parts), []) == list(range(981, 0, -20))
    for steps in (3, 4, 5, 8):
        few = [timesteps(part, ddim) for part in consecutive(ddim, steps, [0.8, 0.94])]
        assert all(few)
        assert len(sum(few, [])) == steps
    with pytest.raises(ValueError, match="3 sizes and needs at least 3 steps, not 2"):
        consecutive(ddim, 2, [0.8, 0.94])
    assert consecutive(ddim, 1, []) == [Part(1)]


def test_start_is_the_same_noise_level_with_every_spacing():
    for spacing in ("leading", "linspace", "trailing"):
        scheduler = make("EulerDiscrete", timestep_spacing=spacing)
        index = first_step(scheduler, 30, 0.3)
        scheduler.set_timesteps(30)
        before, at = scheduler.timesteps[index - 1 : index + 1].tolist()
        assert before > 700 >= at
    karras = make("EulerDiscrete", use_karras_sigmas=True)
    index = first_step(karras, 30, 0.3)
    karras.set_timesteps(30)
    before, at = karras.timesteps[index - 1 : index + 1].tolist()
    assert before > 700 >= at
    assert first_step(make("EulerDiscrete", timestep_spacing="trailing"), 1, 0.5) == 0
    assert progress_of(make("DDIM"), 250) == 0.75


def test_cosine_weight():
    expected = {981: 0.99911, 961: 0.996252, 801: 0.90543, 741: 0.843417, 501: 0.501571, 241: 0.136593, 1: 2e-6}
    ddim = make("DDIM")
    assert {t: cosine(ddim, t) for t in expected} == pytest.approx(expected, abs=1e-6)
    cubes = {981: 0.997331, 801: 0.742274, 741: 0.599966, 501: 0.126182}
    assert {t: cosine(ddim, torch.tensor(t)) ** 3 for t in cubes} == pytest.approx(cubes, abs=1e-6)


def kinds_of_schedulers():
    """Both kinds of prediction; by default each of the two that take half a second to make has one of them."""
    once = {("KDPM2Discrete", "v_prediction"), ("KDPM2AncestralDiscrete", "epsilon")}
    for case in itertools.product(SCHEDULERS, ("epsilon", "v_prediction")):
        yield pytest.param(*case, marks=pytest.mark.slow if case in once else ())


@pytest.mark.parametrize(("name", "kind"), kinds_of_schedulers())
def test_levels_are_the_schedulers(name, kind):
    """In every call of a part: the noise that `add_noise` adds, and both directions of the prediction."""
    generator = torch.Generator().manual_seed(0)
    clean, noise, prediction = (torch.randn(3, 1, 4, 4, 4, generator=generator)).unbind()
    trajectory = Part(12, 4).trajectory(make(name, prediction_type=kind))
    own, latents = trajectory.scheduler, clean
    for t in trajectory.timesteps:
        noised = trajectory.noised(clean, noise, t)
        if own.order == 1:
            torch.testing.assert_close(noised, own.add_noise(clean, noise, t[None]), atol=1e-5, rtol=1e-5)
        inputs = trajectory.scaled(noised, t)
        a, b = trajectory.levels(t)
        torch.testing.assert_close(inputs, a * clean + b * noise, atol=1e-5, rtol=1e-5)
        true = a * noise - b * clean if kind == "v_prediction" else noise
        torch.testing.assert_close(trajectory.clean(true, inputs, t), clean, atol=2e-4, rtol=2e-4)
        estimate = trajectory.clean(prediction, inputs, t)
        torch.testing.assert_close(trajectory.prediction(estimate, inputs, t), prediction, atol=2e-4, rtol=2e-4)
        latents = trajectory.step(prediction, t, noised, 0.0, [torch.Generator().manual_seed(1)])
    assert latents.isfinite().all()


@pytest.mark.parametrize("name", ["DDIM", "DDPM", "EulerDiscrete", "EulerAncestralDiscrete"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_clean_estimate_is_the_schedulers(name, kind):
    if kind == "sample" and name.startswith("Euler"):
        pytest.skip("Euler has no such prediction")
    generator = torch.Generator().manual_seed(0)
    latents, prediction = torch.randn(2, 1, 4, 4, 4, generator=generator).unbind()
    trajectory = Part(12, 4).trajectory(make(name, prediction_type=kind))
    for t in trajectory.timesteps:
        found = trajectory.clean(prediction, trajectory.scaled(latents, t), t)
        expected = trajectory.scheduler.step(prediction, t, latents, generator=generator).pred_original_sample
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_second_order_schedulers_start_at_whole_steps():
    heun = make("HeunDiscrete")
    heun.set_timesteps(10)
    assert steps_of(heun) == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]
    assert timesteps(Part(10, 3), heun) == [601] + [t for t in range(501, 0, -100) for _ in range(2)]
    assert timesteps(Part(10, 3, 5), heun) == [601, 501, 501, 401]


def test_pndm_repeats_the_second_step_of_every_part():
    pndm = make("PNDM", skip_prk_steps=True)
    pndm.set_timesteps(10)
    assert steps_of(pndm) == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]
    assert timesteps(Part(10), pndm) == pndm.timesteps.tolist()
    assert timesteps(Part(10, 6), pndm) == [301, 201, 201, 101, 1]
    assert timesteps(Part(10, 9), pndm) == [1]


def plms(trajectory, latents, predictions):
    """Liu et al. 2022, equations 9 to 12, on Adams-Bashforth history, written out for four steps."""
    alphas = trajectory.scheduler.alphas_cumprod

    def transfer(x, t, later, e):
        a, b = float(alphas[t]), float(alphas[later]) if later >= 0 else float(alphas[0])
        bottom = math.sqrt(a) * (math.sqrt((1 - b) * a) + math.sqrt((1 - a) * b))
        return math.sqrt(b / a) * x - (b - a) / bottom * e

    e = predictions
    x0 = latents
    averaged = (e[0] + e[1]) / 2
    x1 = transfer(x0, 301, 201, averaged)
    x2 = transfer(x1, 201, 101, (3 * e[2] - e[0]) / 2)
    x3 = transfer(x2, 101, 1, (23 * e[3] - 16 * e[2] + 5 * e[0]) / 12)
    return transfer(x3, 1, -99, (55 * e[4] - 59 * e[3] + 37 * e[2] - 9 * e[0]) / 24)


def test_pndm_in_the_middle_of_a_schedule_is_plms_from_there():
    generator = torch.Generator().manual_seed(0)
    latents, *predictions = torch.randn(6, 1, 4, 4, 4, generator=generator, dtype=torch.float64).unbind()
    trajectory = Part(10, 6).trajectory(make("PNDM", skip_prk_steps=True, set_alpha_to_one=False))
    expected = plms(trajectory, latents, predictions)
    for t, prediction in zip(trajectory.timesteps, predictions, strict=True):
        latents = trajectory.step(prediction, t, latents, 0.0, [])
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-5)


def test_rescheduled_noise_has_published_values():
    """MegaFusion at t = 181; the signal-to-noise ratio is divided, with every scheduler."""
    ddim = make("DDIM")
    assert rescheduled(ddim.alphas_cumprod, 2.25)[181].item() == pytest.approx(0.615448, abs=2e-6)
    assert rescheduled(ddim.alphas_cumprod, 4)[181].item() == pytest.approx(0.473751, abs=2e-6)
    for name in ("DDIM", "EulerDiscrete", "DPMSolverMultistep"):
        plain, changed = (Part(50, 40, noise_ratio=r).trajectory(make(name)) for r in (1.0, 4.0))
        assert torch.equal(plain.timesteps, changed.timesteps)
        (a, b), (c, d) = (x.levels(x.timesteps[0]) for x in (plain, changed))
        assert (c / d) ** 2 == pytest.approx((a / b) ** 2 / 4, rel=1e-4)


def test_listed_timesteps_of_ddim_equal_ddim_on_its_own_grid():
    """Also with noise; the last step ends clean, where DDIM ends with the noise of timestep 0."""
    generator = torch.Generator().manual_seed(0)
    latents, prediction = torch.randn(2, 1, 4, 4, 4, generator=generator).unbind()
    for kind, eta in (("epsilon", 0.0), ("v_prediction", 0.7)):
        scheduler = make("DDIM", prediction_type=kind, set_alpha_to_one=True)
        listed = Listed(tuple(range(901, 0, -100))).trajectory(scheduler)
        plain = Part(10).trajectory(scheduler)
        for trajectory in (listed, plain):
            noise, x = [torch.Generator().manual_seed(5)], latents
            for t in trajectory.timesteps:
                x = trajectory.step(prediction, t, x, eta, noise)
            trajectory.result = x
        torch.testing.assert_close(listed.result, plain.result, atol=1e-4, rtol=1e-4)


def test_listed_timesteps_need_a_scheduler_that_takes_them():
    for name in ("EulerDiscrete", "HeunDiscrete", "DPMSolverMultistep", "DDPM", "LCM"):
        assert list(dict.fromkeys(timesteps(Listed((999, 500, 20)), make(name)))) == [999, 500, 20]
    with pytest.raises(ValueError, match="LMSDiscreteScheduler does not take a list of timesteps"):
        Listed((999, 500)).trajectory(make("LMSDiscrete"))


def test_unknown_schedulers_are_refused():
    with pytest.raises(ValueError, match="cannot renoise"):
        check_scheduler(diffusers.EDMEulerScheduler())
    with pytest.raises(ValueError, match="skip_prk_steps=True"):
        check_scheduler(make("PNDM"))
    with pytest.raises(ValueError, match="FlowMatch"):
        check_scheduler(diffusers.FlowMatchEulerDiscreteScheduler())
