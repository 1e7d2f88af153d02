"""Plans against reality: evaluations counted while sampling, FLOPs by formula, memory by profiler."""

import math
import shutil
from dataclasses import replace

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from baselines.direct import Direct
from baselines.method import Request, Sampler
from experiments import plan
from experiments.cost import planning as plan_module
from experiments.cost import probing as probe_module
from experiments.cost.counting import HeldMemory, cost_of, unet_inputs
from experiments.cost.measuring import unet_memory
from experiments.cost.planned import planned_runs, read_planned
from experiments.cost.planning import h100_hours, plan_run, plan_text
from experiments.cost.probing import Probe
from experiments.setup.architecture import fake, load_architecture
from experiments.setup.grid import read_grid
from experiments.setup.models import ModelSource, load_pipeline
from tests.tiny import tiny_overrides


@pytest.fixture
def tiny(pipe_folder, tmp_path):
    """In batches of one, so that the plans of several tests have the same calls, which are counted once."""
    return [*tiny_overrides(pipe_folder, tmp_path), "batch_size=1"]


@pytest.fixture
def rate(monkeypatch):
    """A machine of 2 TFLOP/s, without a probe."""
    monkeypatch.setattr(plan_module, "probe", lambda model, largest: Probe(((1e12, 0.5),), largest))


def operations(unet, inputs):
    """Of convolutions, linear layers and attention, from their definitions and the shapes that pass through them."""
    found = []

    def convolution(module, args, output):
        found.append(2 * output.numel() * module.in_channels * math.prod(module.kernel_size))

    def linear(module, args, output):
        found.append(2 * output.numel() * module.in_features)

    def attention(module, args, kwargs, output):
        queries = args[0]
        keys = kwargs.get("encoder_hidden_states")
        keys = queries if keys is None else keys
        found.append(4 * len(queries) * queries.shape[1] * keys.shape[1] * module.inner_dim)

    hooks = []
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(convolution))
        elif isinstance(module, nn.Linear):
            hooks.append(module.register_forward_hook(linear))
        elif isinstance(module, Attention):
            hooks.append(module.register_forward_hook(attention, with_kwargs=True))
    with torch.no_grad():
        unet(**inputs, timestep=3.0)
    for hook in hooks:
        hook.remove()
    return sum(found)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_flops_match_the_layers(save_pipeline, family):
    source = ModelSource(family, str(save_pipeline(family)), dtype="float32")
    true, shape = load_pipeline(source), load_architecture(source)
    with fake, torch.no_grad():
        inputs = unet_inputs(shape.unet, 4, 16, 24, 12)
        cost = cost_of(lambda: shape.unet(**inputs, timestep=3.0), shape.unet)
    assert cost.flops == operations(true.unet, unet_inputs(true.unet, 4, 16, 24, 12))


def test_fractional_factors_and_dispersed_kernels_cost_flops(tiny):
    """Enlarging 2x2 latents to 3x3 makes 9 / 4 of the convolutions' work; 5x5 instead of 3x3 makes 25 / 9."""
    table = "scalecrafter.dilation={mid_block: %s}"
    flops = {}
    for name, options in {
        "plain": [table % 1],
        "whole": [table % 2],
        "fraction": [table % 1.5],
        "dispersed": [table % 2, "scalecrafter.dispersed=[mid_block]", "scalecrafter.dispersed_tau=50"],
    }.items():
        found = plan_run(read_planned([*tiny, "method=scalecrafter", "scalecrafter.tau=50", *options]))
        flops[name] = found.operations[0][1]
    area, channels, samples, steps = 2 * 2, 16, 2, 2
    middle = 4 * 2 * area * channels * channels * 9 * samples * steps  # four convolutions of the middle block
    assert flops["whole"] == flops["plain"]
    kernels = 4 * 2 * channels * channels * 9 * 25 * steps  # in the plan, made in every call
    assert flops["dispersed"] - flops["plain"] == pytest.approx(middle * (25 / 9 - 1) + kernels)
    assert flops["fraction"] - flops["plain"] == pytest.approx(middle * (9 / 4 - 1))


@pytest.mark.parametrize("samples", [pytest.param(2, marks=pytest.mark.slow), 6])
def test_memory_matches_the_profiler(pipe_folder, samples):
    source = ModelSource("folder", str(pipe_folder), dtype="float32")
    true, shape = load_pipeline(source), load_architecture(source)
    request = Request(["a"] * (samples // 2), list(range(samples // 2)), 192, 192, Sampler())
    seen = unet_memory(true, Direct(), request, 1) - sum(p.nbytes for p in true.unet.parameters())
    with fake, torch.no_grad():
        inputs = unet_inputs(shape.unet, samples, 48, 48, 12)
        cost = cost_of(lambda: shape.unet(**inputs, timestep=3.0), shape.unet)
    assert cost.memory == pytest.approx(seen, rel=0.15)


def test_memory_is_held_until_the_last_reference_is_gone():
    outside = torch.zeros(1000)
    with HeldMemory() as held:
        argument = outside[:10]
        assert held.held == 0
        a = torch.zeros(1000)  # 4000 bytes
        view = a[:10]
        del a
        assert held.held == 4000
        b = view + 1
        del view
        assert held.held == 40
        c = b.add_(1)
        assert held.held == 40
        del b, c, argument
    assert (held.held, held.most) == (0, 4040)


def test_decoding_in_tiles_is_counted_once_and_without_maps_in_main_memory(tiny, monkeypatch):
    """The image is three tiles; without a GPU the feature maps of all of it are on the device."""
    model = read_planned([*tiny, "method=direct"]).workload.model
    tiled = replace(model, source=replace(model.source, tiled_above=64))
    costs = {}
    for name, each, gpu in (("at once", model, True), ("tiles", tiled, True), ("tiles without GPU", tiled, False)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        costs[name] = plan_module.decoding_cost.__wrapped__(each, 1536, 512, 1)
    assert 1 < costs["tiles"].flops / costs["at once"].flops < 1.05
    maps = 2 * 4 * 1536 * 512 * 4  # the last resnet's, of four channels
    assert costs["tiles"].memory < costs["at once"].memory / 2
    assert costs["tiles without GPU"].memory > costs["tiles"].memory + maps


def test_a_plan_lists_every_run_and_samples_nothing(tiny, tmp_path, capsys, rate):
    """The base samples first, once; resolutions and methods from the grid; totals of all images."""
    plan.main(["resolution=x4,x16", "method=direct,upscale,upscale_sd", *tiny])
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if line.startswith("| x")]
    assert [[part.strip() for part in line.split("|")[1:3]] for line in lines] == [
        ["x1 32x32", "direct"],
        ["x4 64x64", "direct"],
        ["x4 64x64", "upscale"],
        ["x16 128x128", "direct"],
        ["x16 128x128", "upscale"],
    ]
    assert "upscale_sd cannot be planned" in shown
    planned = read_planned([*tiny, "method=direct", "resolution=x16"])
    seconds = plan_run(planned).flops / 2e12
    assert f"{seconds:.3g}" in lines[3]
    assert f"{4 * seconds / 3600:.3g}" in lines[3]
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "results").exists()


def test_the_papers_table_is_planned_without_weights_or_prompts(rate):
    """Two of its runs, at their true size; windows one at a time, whose call is that of the base samples."""
    line = ["experiment=paper", "model=sd21", "prompts.path=/nowhere", "resolution=x4", "multidiffusion.stride=null"]
    line += ["batch_size=1", "multidiffusion.window_batch=1"]
    grid = read_grid([*line, "method=direct,multidiffusion", "prompts.limit=paper", "experiment.skip=[]"])
    text = plan_text([row.overrides for row in grid.rows])
    rows = [[part.strip() for part in line.split("|")] for line in text.splitlines() if line.startswith("| x")]
    assert [row[1:4] for row in rows] == [
        ["x1 512x512", "direct", "30000"],
        ["x4 1024x1024", "direct", "30000"],
        ["x4 1024x1024", "multidiffusion", "30000"],
    ]
    assert [row[4] for row in rows] == ["50", "200", "4050"]
    base, large, windows = (float(row[5].replace(",", "")) for row in rows)
    # 339 G multiply-adds in the layers of a U-Net and 1240 G in the decoder as published (arXiv 2305.15798), and
    # the products of self-attention on 64x64 (width 320), 32x32 (640) and 16x16 latents (1280), five at each level.
    products = sum(2 * 5 * side**4 * width for side, width in ((64, 320), (32, 640), (16, 1280)))
    assert base == pytest.approx(2 * (50 * 2 * (339e9 + products) + 1240e9) / 1e12, rel=0.03)
    assert 4 * base < large < 8 * base  # attention grows with the square
    assert windows == pytest.approx(81 * base, rel=0.2)


def test_every_image_is_counted_once(tiny):
    """A row with fewer prompts has the first images of another, and one at the training size may be the base."""
    base = "method=direct", "resolution=x1"
    lines = [["method=direct", "prompts.limit=3"], ["method=direct", "prompts.limit=9"], ["method=direct", "seed=1"]]
    runs, refused = planned_runs([[*tiny, *line] for line in (base, *lines)])
    found = [(run.workload.resolution, run.images, run.source["seed"]) for run in runs]
    assert found == [("x1", 9, 0), ("x1", 4, 1), ("x4", 9, 0), ("x4", 4, 1)]
    assert refused == []


def test_a_row_that_cannot_be_built_stops_no_other(tiny, rate):
    text = plan_text([[*tiny, "method=direct", f"model.path={path}"] for path in ("/gone", tiny[1].split("=")[1])])
    assert "| x4 64x64" in text
    assert text.splitlines()[-1].startswith("no pipeline folder at /gone: give model.path")


def test_the_sum_comes_first_in_hours_of_an_h100(tiny, rate):
    lines = [[*tiny, f"method={name}", "prompts.limit=1000000"] for name in ("direct", "upscale")]
    plans = [plan_run(run) for run in planned_runs(lines)[0]]
    hours = sum(plan.flops for plan in plans) * 1e6 / 100e12 / 3600
    first = plan_text(lines).splitlines()[0]
    assert first.startswith(f"Total: {hours:.3g} H100-hours (assumed to sustain 100 TFLOP/s), ")
    assert f" {50 * hours:.3g} hours on " in first  # at 2 TFLOP/s


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "most"), [("paper", 1000), ("paper_1k", 60)])
def test_a_lab_can_afford_the_papers_comparison(experiment, most):
    """Of Stable Diffusion 1.5 at its true size, on H100s that sustain 100 TFLOP/s."""
    grid = read_grid([f"experiment={experiment}", "model=sd15", "model.dtype=float16", "prompts.path=/nowhere"])
    runs, refused = planned_runs([row.overrides for row in grid.rows])
    assert refused == []
    hours = {(run.workload.resolution, run.workload.method_name): h100_hours([plan_run(run)]) for run in runs}
    assert len(hours) == {"paper": 1 + 4 * 4 + 2, "paper_1k": 1 + 6 + 3}[experiment]
    assert 0.5 * most < sum(hours.values()) <= most, hours


def test_model_too_large_for_the_device_is_planned_but_not_timed(tiny, monkeypatch):
    for module in (plan_module, probe_module):
        monkeypatch.setattr(module, "device_memory", lambda: 1000)
    shown = plan_text([[*tiny, "method=direct"]])
    assert "does not fit into the 0 GB" in shown
    assert " ! " in shown
    assert "nan" in shown


def test_runs_that_cannot_be_planned_raise(tiny, tmp_path, save_pipeline):
    with pytest.raises(ValueError, match="nearest size is"):
        plan_text([[*tiny, "resolution.scale_width=2.0625"]])
    with pytest.raises(ValueError, match="upscale_sd cannot be planned"):
        plan_text([[*tiny, "method=upscale_sd", "metrics=none"]])
    copy = shutil.copytree(save_pipeline("sd15"), tmp_path / "copy")
    (copy / "unet/config.json").write_text("{")
    with pytest.raises(ValueError, match="incomplete or damaged"):
        plan_text([[*tiny, f"model.path={copy}"]])
