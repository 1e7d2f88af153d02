"""ScaleCrafter in a cascade against an explicit loop, SDEdit, and counted calls."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from baselines.cascade.sdedit import SDEdit
from baselines.method import Request, Sampler
from baselines.scalecrafter import ScaleCrafter
from baselines.scalecrafter_cascade import ScaleCrafterCascade
from experiments.cost.counting import counted_evaluations
from scalecrafter.settings import Settings, expand
from tests.baselines.cascade import slow
from tests.tiny import generate

# Active for t = 401 of the second stage's 401, 201 and 1.
TABLE = expand({"mid_block": 2, "down_blocks.2": 2, "up_blocks.1": 3})
BASE = expand({"mid_block": 2})
SETTINGS = Settings(TABLE, tau=45, noise_damped_dilation=BASE, noise_damped_tau=20)
OWN = {"scalecrafter": ScaleCrafter(SETTINGS), "tau": 36}
METHOD = ScaleCrafterCascade(**OWN)


def test_cost_at_sixteen_times_the_area_is_below_its_target(pipe, planned_pairs):
    """50 + 25 x 4 and 50 + 25 x 16 pairs; direct inference has 200 and 800, and the target is 0.6 of that."""
    assert planned_pairs(METHOD, pipe, 2, 2) == 150
    assert planned_pairs(METHOD, pipe, 4, 4) == 450 <= 0.6 * 800
    assert planned_pairs(ScaleCrafterCascade(count=None, **OWN), pipe, 4, 4) == 50 + 25 * 4 + 25 * 16


def with_dilation(pipe, table, predict):
    """What ``predict`` returns while the convolutions have these dilations."""
    convolutions = {pipe.unet.get_submodule(name): (d, d) for name, d in table.items()}
    for conv, d in convolutions.items():
        conv.dilation = conv.padding = d
    found = predict()
    for conv in convolutions:
        conv.dilation = conv.padding = (1, 1)
    return found


@torch.no_grad()
def slow_cascade(pipe, seed, *, space="rgb", noise_damped=False):
    """32 -> 64 with five steps, of which three are sampled again, the first of them dilated."""
    generator, text, scheduler = torch.Generator().manual_seed(seed), slow.embed(pipe), slow.scheduler_of(pipe)
    x, _ = slow.sample(pipe, scheduler, slow.noise_of(generator, 8, 8), scheduler.timesteps.tolist(), text)
    if space == "rgb":
        image = functional.interpolate(slow.decode(pipe, x).float(), (64, 64), mode="bicubic", align_corners=False)
        x = slow.encode(pipe, image.double(), generator)
    else:
        x = functional.interpolate(x.float(), (16, 16), mode="bicubic", align_corners=False).double()
    x = slow.noised(scheduler, x, slow.noise_of(generator, 16, 16), 401)
    for t in (401, 201, 1):
        table = TABLE if t >= 300 else {}

        def halves(x=x, t=t):
            return pipe.unet(torch.cat([x] * 2), t, text).sample.chunk(2)

        uncond, cond = with_dilation(pipe, table, halves)
        start = with_dilation(pipe, BASE, halves)[0] if noise_damped and table else uncond
        x = scheduler.step(start + slow.W * (cond - uncond), t, x).prev_sample
    return x


@pytest.mark.parametrize("options", [{}, {"space": "latent"}, {"noise_damped": True}])
def test_latents_equal_the_explicit_loop(pipe, options):
    slow.precise(pipe)
    request = Request(["a b"], [5], 64, 64, Sampler(slow.STEPS, slow.W))
    found = ScaleCrafterCascade(**OWN, **options).sample(pipe, request)
    torch.testing.assert_close(found, slow_cascade(pipe, 5, **options), atol=1e-4, rtol=1e-4)


def test_without_dilation_it_is_sdedit(pipe):
    plain = SDEdit(space="rgb", skip=0.5, count=2)
    assert np.array_equal(generate(ScaleCrafterCascade(**OWN | {"tau": 0}), pipe, [1]), generate(plain, pipe, [1]))
    none = ScaleCrafterCascade(scalecrafter=ScaleCrafter(Settings()))
    assert np.array_equal(generate(none, pipe, [1]), generate(plain, pipe, [1]))


def test_every_option_changes_the_image(pipe):
    base = generate(METHOD, pipe, [1], (128, 64), steps=6)
    more = ScaleCrafter(SETTINGS, changes={"dilation": {"mid_block": 4}})
    changes = [{"skip": 0.3}, {"tau": 29}, {"tau": None}, {"noise_damped": True}, {"space": "latent"}]
    for change in [*changes, {"count": None}, {"scalecrafter": more}]:
        found = generate(ScaleCrafterCascade(**OWN | change), pipe, [1], (128, 64), steps=6)
        assert not np.array_equal(found, base), change


@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
@pytest.mark.parametrize("options", [{}, {"noise_damped": True}, {"noise_damped": True, "tau": None, "skip": 0.3}])
def test_planned_calls_are_those_counted(pipe, options, guidance_scale):
    """Base passes are half a call, and none without guidance, whatever the pipeline was called with before."""
    pipe._guidance_scale = 5.0 - guidance_scale
    method, request = (
        ScaleCrafterCascade(**OWN | options),
        Request(["a"], [1], 64, 64, Sampler(10, guidance_scale)),
    )
    planned = sum(c.times * c.samples / 2 * c.height * c.width / 64 for c in method.calls(pipe, request))
    with counted_evaluations(pipe.unet) as evaluations:
        method.generate(pipe, request)
    assert sum(evaluations) == pytest.approx(planned)
    assert pipe._guidance_scale == 5.0 - guidance_scale


def test_identity_holds_what_acts(pipe):
    """Settings of each later stage, within the window, and nothing of what is off."""
    found = METHOD.describe(pipe, 128, 128)
    assert found["sizes"] == [[32, 32], [128, 128]]
    (settings,) = found["settings"]
    assert (settings["tau"], settings["noise_damped_tau"], settings["noise_damped_dilation"]) == (36, 0, {})
    assert not {"scalecrafter", "tau", "noise_damped"} & set(found)
    assert len(ScaleCrafterCascade(**OWN | {"count": None}).describe(pipe, 128, 128)["settings"]) == 2
    damped = ScaleCrafterCascade(**OWN | {"noise_damped": True}).describe(pipe, 128, 128)["settings"]
    assert (damped[0]["noise_damped_tau"], damped[0]["noise_damped_dilation"]) == (36, BASE)


def test_what_does_not_fit_is_refused(pipe):
    with pytest.raises(ValueError, match="tau counts the paper's steps, from 0 to 50, not 51"):
        ScaleCrafterCascade(tau=51)
    wrong = ScaleCrafterCascade(scalecrafter=ScaleCrafter(Settings({"nowhere": 2}, tau=30)))
    with pytest.raises(ValueError, match="nowhere"):
        wrong.describe(pipe, 64, 64)
