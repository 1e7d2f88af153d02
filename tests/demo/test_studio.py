"""Drawing: the images are those of the stock pipeline and of the benchmark's methods, each drawn once."""

import threading
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from baselines.direct import Direct
from baselines.method import Request, Sampler
from experiments.cost.counting import counted_evaluations
from experiments.demo.choice import LAST_SEED, NOT_DRAWN, Choice, method_names, method_summary, workload_of
from experiments.demo.parts import Parts
from experiments.demo.studio import Cancelled
from experiments.setup.schema import CONF
from tests.tiny import generate

CHOICE = Choice("a red house", 7, 64, 96, 2)


def drawn(studio, choice):
    return studio.start(choice).future.result().image


def sampled(studio, choice):
    """The same image without an estimate, which takes longer."""
    workload = workload_of(studio.overrides, choice)
    request = Request([choice.prompt], [choice.seed], choice.height, choice.width, workload.sampler)
    return workload.method.generate(studio.pipe, request)[0]


def test_direct_inference_is_the_stock_pipeline(studio):
    pipe = StableDiffusionPipeline.from_pretrained(studio.base.model.source.path, safety_checker=None)
    made = pipe(
        CHOICE.prompt,
        height=64,
        width=96,
        num_inference_steps=2,
        guidance_scale=7.5,
        generator=torch.Generator().manual_seed(7),
        output_type="np",
    ).images[0]
    image = drawn(studio, CHOICE.direct())
    assert image.shape == (64, 96, 3)
    assert np.abs(image - made * 255).max() <= 1  # rounding, and another order of sums


def test_everything_chosen_changes_the_image(studio):
    choice = CHOICE.direct()
    image = drawn(studio, choice)
    for name, value in {"prompt": "a blue car", "seed": 8, "height": 96, "steps": 3, "method": "scalecrafter"}.items():
        assert not np.array_equal(image, drawn(studio, replace(choice, **{name: value}))), name


def test_every_part_changes_the_image(studio):
    choice = replace(CHOICE, steps=3)
    usual = studio.parts_at(64, 96)
    image, direct = sampled(studio, choice), sampled(studio, choice.direct())
    for name in (field.name for field in fields(Parts)):
        other = sampled(studio, replace(choice, parts=replace(usual, **{name: not getattr(usual, name)})))
        assert not np.array_equal(image, other), name
        assert np.array_equal(direct, other) == (name == "redilation")


def test_an_image_is_drawn_once(studio):
    first = drawn(studio, CHOICE)
    with counted_evaluations(studio.pipe.unet) as work:
        usual = studio.parts_at(64, 96)
        assert drawn(studio, replace(CHOICE, parts=usual)) is first  # parts that are on anyway
        assert not work
        assert studio.seconds(CHOICE) == 0
        other = replace(CHOICE, parts=replace(usual, cutoff=False))
        image = drawn(studio, other)
        assert work
    assert not np.array_equal(image, first)
    assert np.array_equal(image, sampled(studio, other))


def test_the_least_recently_seen_images_are_dropped(studio, monkeypatch):
    monkeypatch.setattr("experiments.demo.studio.KEPT_BYTES", 2 * 3 * 64 * 96)
    choices = [replace(CHOICE.direct(), seed=seed) for seed in (1, 2, 3)]
    for choice in (choices[0], choices[1], choices[0], choices[2]):
        drawn(studio, choice)
    assert [studio.kept(choice) is not None for choice in choices] == [True, False, True]


def test_estimates_come_from_what_was_drawn(studio):
    """In proportion to the FLOPs, which grow with the area."""
    studio.warm_up()
    small, large = CHOICE.direct(), replace(CHOICE.direct(), height=96)
    assert studio.seconds(large) > studio.seconds(small) > 0
    done = studio.start(replace(small, seed=99)).future.result()
    assert studio.seconds(small) == pytest.approx(done.seconds)
    assert studio.seconds(replace(small, steps=20)) > 2 * studio.seconds(small)


@pytest.mark.parametrize("method", ["direct", "scalecrafter", "multidiffusion"])
def test_work_is_all_done_at_the_end(studio, method):
    """The share of the work: the planner's evaluations are those that are counted."""
    job = studio.start(replace(CHOICE, method=method))
    job.future.result()
    assert sum(job.done) == pytest.approx(job.plan.evaluations, rel=0.01)
    assert job.remaining() == pytest.approx(0, abs=0.02 * job.elapsed() + 1e-9)


@pytest.mark.parametrize("method", ["direct", "scalecrafter", "multidiffusion"])
def test_stopping_ends_within_a_step_and_restores_the_pipeline(studio, method):
    before = generate(Direct(), studio.pipe, [11])
    stop, calls = threading.Event(), []

    def count(module, args):
        calls.append(module)
        if len(calls) == 2:
            stop.set()

    hook = studio.pipe.unet.conv_in.register_forward_pre_hook(count)
    job = studio.start(replace(CHOICE, method=method), stop)
    with pytest.raises(Cancelled):
        job.future.result()
    hook.remove()
    assert len(calls) == 2
    assert not any(module._forward_pre_hooks for module in studio.pipe.unet.modules())
    assert np.array_equal(generate(Direct(), studio.pipe, [11]), before)
    assert studio.kept(job.choice) is None


def test_stopping_before_the_start(studio):
    stop = threading.Event()
    stop.set()
    with counted_evaluations(studio.pipe.unet) as work, pytest.raises(Cancelled):
        studio.start(CHOICE, stop).future.result()
    assert not work


def test_images_wait_for_those_before(studio):
    jobs = [studio.start(replace(CHOICE.direct(), seed=seed, steps=20)) for seed in (1, 2)]
    assert jobs[1].ahead == 1
    assert [job.future.result().image.shape for job in jobs] == [(64, 96, 3)] * 2
    assert jobs[0].started < jobs[1].started
    assert studio.start(CHOICE).ahead == 0


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ((62, 64), "62x64 .* not divisible by 4"),
        ((16, 16), "below the training size 32x32"),
        ((512, 512), "256 times the training area 32x32, and this page draws up to 20 times"),
    ],
)
def test_a_bad_size_is_one_sentence(studio, size, sentence):
    for choice in (CHOICE, CHOICE.direct()):
        with pytest.raises(ValueError, match=sentence):
            studio.start(replace(choice, height=size[0], width=size[1]))


def test_too_little_memory_is_one_sentence(studio, monkeypatch):
    monkeypatch.setattr("experiments.demo.studio.device_memory", lambda: 1e5)
    with pytest.raises(ValueError, match="needs about .* GB, and this machine has 0.0 GB: choose a smaller size"):
        studio.start(CHOICE)


@pytest.mark.parametrize("values", [{"seed": -1}, {"seed": LAST_SEED + 1}, {"steps": 0}, {"steps": 501}])
def test_numbers_outside_their_range_are_one_sentence(values):
    (name,) = values
    with pytest.raises(ValueError, match=f"{name}s? (is a|are a) whole number from"):
        replace(CHOICE, **values)


def test_every_method_of_the_benchmark_can_be_drawn():
    assert {*method_names(), "direct"} | NOT_DRAWN == {path.stem for path in (CONF / "method").glob("*.yaml")}
    assert method_names()[0] == "scalecrafter"
    assert all(len(method_summary(name)) > 20 for name in method_names())


def test_overrides_reach_the_method_and_the_sampler(small, studio):
    """What the command line says of the configuration holds on the page too."""
    workload = workload_of([*small, "scalecrafter.tau=11", "sampler.guidance_scale=3"], CHOICE)
    assert workload.sampler == Sampler(2, 3.0)
    image = workload.method.generate(studio.pipe, Request(["a"], [1], 64, 64, workload.sampler))
    assert workload.method.resolve(studio.pipe, 64, 64).tau == 11
    assert image.shape == (1, 64, 64, 3)
