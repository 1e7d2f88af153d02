"""DemoFusion against its published algorithm, which steps every crop and view by itself, as loops."""

import copy

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)

from baselines.direct import Direct
from baselines.method import Request, Sampler
from baselines.patches.demofusion import DemoFusion
from experiments.cost.counting import counted_evaluations
from experiments.setup.architecture import load_architecture
from experiments.setup.models import ModelSource
from tests.baselines.patches import slow
from tests.baselines.patches.slow import latents_of, request_for, slow_method
from tests.tiny import generate, tiny_pipeline, tiny_sdxl_pipeline

# SD 1.5's topology is that of the test of three phases.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("sd15", "sd21")]


@pytest.fixture(params=[*SLOW, "sdxl"])
def family(request, tmp_path):
    return tiny_sdxl_pipeline(tmp_path) if request.param == "sdxl" else tiny_pipeline(tmp_path, request.param)


def test_fused_predictions_equal_fused_steps(family, monkeypatch):
    sizes = [(8, 8), (16, 16)]
    found = latents_of(DemoFusion(), family, request_for(sizes), monkeypatch)
    torch.testing.assert_close(found, slow_method(family, "a b", 3, sizes), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("scheduler", "phases"), [(DDIMScheduler, 3), (EulerDiscreteScheduler, 2)])
def test_phases_of_another_aspect(pipe, scheduler, phases, monkeypatch):
    """Sides that the scale does not divide, and a first phase of odd sides."""
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    sizes = [(5, 8), (10, 16), (16, 24)][:phases]
    found = latents_of(DemoFusion(), pipe, request_for(sizes), monkeypatch)
    torch.testing.assert_close(found, slow_method(pipe, "a b", 3, sizes), atol=1e-4, rtol=1e-4)


def test_schedulers_with_a_history_step_the_whole_latent(pipe, monkeypatch):
    """Also where velocities are predicted. Of three steps the second looks back."""
    monkeypatch.setattr(slow, "STEPS", 3)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    sizes = [(8, 8), (16, 16)]
    request, expected = request_for(sizes), slow_method(pipe, "a b", 3, sizes, stepped=False)
    found = latents_of(DemoFusion(), pipe, request, monkeypatch)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


# Latent pixels and steps -> pairs at the training size, each crop or view of a pair counted as one.
PAIRS = {
    (2048, 2048): 700,
    (3072, 3072): 2400,
    (4096, 4096): 5650,
    (2048, 4096): 3200,
    (2048, 3072): 1750,
    (2304, 4096): 3950,
}


@pytest.mark.parametrize("size", PAIRS)
def test_published_cost(size):
    request = Request(["a"], [0], *size, Sampler(50, 7.5))
    calls = DemoFusion().calls(load_architecture(ModelSource("sdxl")), request)
    assert sum(each.times * each.samples / 2 for each in calls) == PAIRS[size]


@pytest.mark.parametrize(
    ("size", "guidance_scale"), [((64, 64), 4.0), ((64, 96), 1.0), ((64, 96), 4.0), ((128, 32), 1.0)]
)
def test_calls_are_those_made(pipe, size, guidance_scale):
    method = DemoFusion(part_batch=3)
    request = Request(["a b", "c"], [1, 2], *size, Sampler(2, guidance_scale))
    with counted_evaluations(pipe.unet) as counted:
        method.generate(pipe, request)
    planned = [
        each.samples / 2 * each.height * each.width / 64
        for each in method.calls(pipe, request)
        for _ in range(each.times)
    ]
    assert sorted(counted) == sorted(planned)


def test_training_size_is_direct_inference(pipe):
    assert np.array_equal(generate(DemoFusion(), pipe, size=(32, 32)), generate(Direct(), pipe, size=(32, 32)))


def test_every_option_changes_the_image(sdxl):
    options = {"seeds": (1,), "size": (64, 32), "steps": 2}
    base = generate(DemoFusion(), sdxl, **options)
    for change in (
        {"size_condition": "base"},
        {"windows": False},
        {"dilated": False},
        {"fusion_exponent": 3.0},
        {"sigma": 0.0},
        {"sigma": 0.8},
        {"blur_exponent": 3.0},
        {"filter_reach": 2},
        {"stride": 6},
        {"jitter": 0},
        {"renormalise": False},
        {"crop_coordinates": False},
    ):
        assert not np.array_equal(generate(DemoFusion(**change), sdxl, **options), base), change
    assert np.abs(generate(DemoFusion(part_batch=3), sdxl, **options).astype(int) - base).max() <= 1
    images = [generate(DemoFusion(residual_exponent=e), sdxl, [1], (64, 32), steps=3) for e in (None, 1.0, 3.0)]
    assert len({image.tobytes() for image in images}) == 3  # in the second of two steps nothing of it is left


def test_a_phase_between_the_first_and_the_last_changes_the_image(pipe):
    assert [len(DemoFusion(count=count).describe(pipe, 64, 96)["sizes"]) for count in (None, 2)] == [3, 2]
    images = [generate(DemoFusion(count=count), pipe, [1], (64, 96), steps=2) for count in (None, 2)]
    assert not np.array_equal(*images)


@pytest.fixture
def sdxl(tmp_path):
    return tiny_sdxl_pipeline(tmp_path)


@pytest.mark.parametrize(
    "scheduler", [EulerDiscreteScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler]
)
def test_schedulers_are_left_as_they_were(pipe, scheduler):
    """Also those with a history and noise; an image does not depend on what was sampled before."""
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    own, before = pipe.scheduler, copy.deepcopy(vars(pipe.scheduler))
    images = generate(DemoFusion(), pipe, [1], steps=2)
    assert pipe.scheduler is own
    assert str(vars(own)) == str(before)
    assert np.array_equal(generate(DemoFusion(), pipe, [1], steps=2), images)


def test_crops_alone_and_views_alone(pipe, monkeypatch):
    """With one of the two, its prediction is the whole prediction."""
    request = request_for([(8, 8), (16, 16)])
    for method, parts, exponent in (
        (DemoFusion(dilated=False), 9, 1e9),  # the cosine to this power is 0
        (DemoFusion(windows=False), 4, 0.0),
    ):
        assert [each.samples // 2 for each in method.calls(pipe, request)] == [1, parts]
        alone = latents_of(method, pipe, request, monkeypatch)
        both = latents_of(DemoFusion(fusion_exponent=exponent), pipe, request, monkeypatch)
        torch.testing.assert_close(both, alone, atol=1e-5, rtol=1e-5)


def test_description_names_what_affects_pixels(pipe, sdxl):
    described = DemoFusion().describe(sdxl, 64, 96)
    assert described["sizes"] == [[20, 32], [40, 64], [64, 96]]
    assert described["crops"] == [6, 15]
    assert described["stride"] == [4, 4]
    assert described["jitter"] == [1, 1]
    assert "part_batch" not in described
    assert "crop_coordinates" not in DemoFusion().describe(pipe, 64, 64)
    assert "sigma" not in DemoFusion(dilated=False).describe(pipe, 64, 64)
    assert "jitter" not in DemoFusion(windows=False).describe(pipe, 64, 64)


def test_invalid_options_and_schedulers_raise(pipe):
    for options, message in (
        ({"windows": False, "dilated": False}, "both off"),
        ({"sigma": -1.0}, "sigma must be"),
        ({"stride": 9}, "stride must be 1 to 8"),
        ({"stride": 0}, "stride must be 1 to 8"),
        ({"jitter": 3}, "jitter must be 0 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            DemoFusion(**options).describe(pipe, 64, 64)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=True)
    with pytest.raises(ValueError, match="clip_sample=False"):
        DemoFusion().describe(pipe, 64, 64)
