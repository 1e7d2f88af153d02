"""Every option of the configuration: it changes the identity of a run exactly when it changes the images."""

import json
import re
import shutil
from functools import cache

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from omegaconf import OmegaConf
from PIL import Image

from experiments.sampling.generate import generate_run
from experiments.sampling.manifest import read_records
from experiments.setup import compose
from experiments.setup.compose import compose_config
from experiments.setup.models import resolve_dtype
from experiments.setup.runs import build_run
from tests.tiny import tiny_overrides, tiny_upscaler, tiny_vae

DAMPED = ["scalecrafter.noise_damped_tau=40", "scalecrafter.noise_damped_dilation={down_blocks.0: 3, up_blocks.3: 3}"]
DISPERSED = ["scalecrafter.dispersed=[mid_block]", "scalecrafter.dispersed_tau=40"]
SYNC = ["method=syncdiffusion", "multidiffusion.stride=4", "syncdiffusion.weight=500"]
WINDOWS = ["method=multidiffusion", "multidiffusion.stride=4"]

# Option (and when) -> (what it needs to act, another value): those that change images, and those that do not.
CHANGES = {
    "model.path": ([], "model.path=@OTHER_WEIGHTS"),
    "model.dtype": ([], "model.dtype=float16"),
    "model.scheduler": (["model.path=@EULER"], "model.scheduler=ddim"),
    "model.vae": ([], "model.vae=@OTHER_VAE"),
    "model.tiled_above": (["resolution=x4", "resolution.scale_width=17", "method=direct"], "model.tiled_above=64"),
    "model.steps": (["sampler.steps=${model.steps}"], "model.steps=3"),
    "model.guidance_scale": ([], "model.guidance_scale=3"),
    "model.distance": (SYNC, "model.distance={_target_: tests.setup.test_identity.Brightness}"),
    "model.window_stride": (["method=multidiffusion"], "model.window_stride=4"),
    "model.sync_steps": (SYNC, "model.sync_steps=1"),
    "model.sync_weight": (SYNC[:2], "model.sync_weight=500"),
    "method.eta": (["sampler=paper"], "method.eta=0.5"),
    "resolution.scale_height": ([], "resolution.scale_height=3"),
    "resolution.scale_width": ([], "resolution.scale_width=3"),
    "sampler.steps": ([], "sampler.steps=3"),
    "sampler.guidance_scale": ([], "sampler.guidance_scale=3"),
    "sampler.eta": ([], "sampler.eta=0.5"),
    "sampler.scheduler": ([], "sampler.scheduler=euler"),
    "sampler.negative_prompt": ([], "sampler.negative_prompt=blurry"),
    "sampler.freeu": ([], "sampler.freeu={b1: 1.5, b2: 1.6, s1: 0.5, s2: 0.2}"),
    "sampler.size_condition": (["model.path=@SDXL", "method=direct"], "sampler.size_condition=base"),
    "method.published": (["method=direct", "sampler=published"], "method.published={any: {scheduler: euler}}"),
    "prompts.source": ([], "prompts=file prompts.path=@PROMPTS"),
    "prompts.path": (["prompts=file", "prompts.path=@PROMPTS"], "prompts.path=@OTHER_PROMPTS"),
    "prompts.seed": ([], "prompts.seed=7"),
    "seed": ([], "seed=1"),
    "scalecrafter.settings": ([], "scalecrafter.settings=sdxl_x4"),
    "model.settings": (["scalecrafter.settings=auto", "model.settings={4: sd15_x4}"], "model.settings={4: sdxl_x4}"),
    "scalecrafter.radius": ([], "scalecrafter.radius=3"),
    "scalecrafter.tau": ([], "scalecrafter.tau=20"),
    "scalecrafter.progressive": (["scalecrafter.radius=4"], "scalecrafter.progressive=true"),
    "scalecrafter.dilation": ([], "scalecrafter.dilation={mid_block: 3}"),
    "scalecrafter.noise_damped_tau": (DAMPED[1:], "scalecrafter.noise_damped_tau=30"),
    "scalecrafter.noise_damped_dilation": (DAMPED[:1], "scalecrafter.noise_damped_dilation={mid_block: 3}"),
    "scalecrafter.dispersed": (DISPERSED[1:], "scalecrafter.dispersed=[mid_block]"),
    "scalecrafter.dispersed_tau": (DISPERSED, "scalecrafter.dispersed_tau=20"),
    "scalecrafter.dispersed_size": (DISPERSED, "scalecrafter.dispersed_size=7"),
    "scalecrafter.dispersion_eta": (DISPERSED, "scalecrafter.dispersion_eta=5"),
    "scalecrafter.freeu": ([], "scalecrafter.freeu={b1: 1.5, b2: 1.6, s1: 0.5, s2: 0.2}"),
    "multidiffusion.stride": (WINDOWS, "multidiffusion.stride=8"),
    "multidiffusion.circular": (WINDOWS, "multidiffusion.circular=true"),
    "multidiffusion.crop_coordinates": ([*WINDOWS, "model.path=@SDXL"], "multidiffusion.crop_coordinates=true"),
    "syncdiffusion.weight": (SYNC, "syncdiffusion.weight=50"),
    "syncdiffusion.decay": (SYNC, "syncdiffusion.decay=0.1"),
    "syncdiffusion.sync_steps": (SYNC, "syncdiffusion.sync_steps=1"),
    "syncdiffusion.anchor": (SYNC, "syncdiffusion.anchor=first"),
    "upscale_sd.model": (["method=upscale_sd", "upscale_sd.model=@UPSCALER"], "upscale_sd.model=@OTHER_UPSCALER"),
    "upscale_sd.steps": (["method=upscale_sd", "upscale_sd.model=@UPSCALER"], "upscale_sd.steps=3"),
    "upscale_sd.guidance_scale": (["method=upscale_sd", "upscale_sd.model=@UPSCALER"], "upscale_sd.guidance_scale=2"),
    "upscale_sd.noise_level": (["method=upscale_sd", "upscale_sd.model=@UPSCALER"], "upscale_sd.noise_level=90"),
}
KEEPS = {
    "model.path": ([], "model.path=@SAME_WEIGHTS"),
    "model.dtype": ([f"model.dtype={resolve_dtype('auto')}"], "model.dtype=auto"),
    "model.scheduler": ([], "model.scheduler=ddim"),
    "model.prediction": ([], "model.prediction=epsilon"),
    "model.side": ([], "model.side=32"),
    "model.tiled_above": ([], "model.tiled_above=1"),
    "prompts.limit": ([], "prompts.limit=2"),
    "sampler.scheduler": ([], "sampler.scheduler=ddim"),
    "sampler.negative_prompt": (["sampler.guidance_scale=1"], "sampler.negative_prompt=blurry"),
    "sampler.size_condition": ([], "sampler.size_condition=base"),
    "method.published": (["method=direct"], "method.published={any: {scheduler: euler}}"),
    "resolution.images": (["prompts.limit=${resolution.images}", "resolution.images=1"], "resolution.images=2"),
    "batch_size": ([], "batch_size=1"),
    "shard": ([], "shard=0/1"),
    "locks": ([], "locks=false"),
    "verify": ([], "verify=true"),
    "paths.results": ([], "paths.results=elsewhere"),
    "multidiffusion.window_batch": (WINDOWS, "multidiffusion.window_batch=2"),
    "syncdiffusion.recompute": (SYNC, "syncdiffusion.recompute=true"),
    "multidiffusion.crop_coordinates": (WINDOWS, "multidiffusion.crop_coordinates=true"),
    "upscale_sd.model": (["method=upscale_sd", "upscale_sd.model=@UPSCALER"], "upscale_sd.model=@SAME_UPSCALER"),
    "scalecrafter.tau, of another method": (["method=direct"], "scalecrafter.tau=20"),
    "multidiffusion.stride, of another method": (["method=attention_scaling"], "multidiffusion.stride=4"),
    "syncdiffusion.weight, of another method": (WINDOWS, "syncdiffusion.weight=500"),
    "scalecrafter.dispersed_tau": (["scalecrafter.tau=40", *DISPERSED], "scalecrafter.dispersed_tau=50"),
    "scalecrafter.dispersed_size": ([], "scalecrafter.dispersed_size=7"),
    "scalecrafter.dispersion_eta": ([], "scalecrafter.dispersion_eta=5"),
    "scalecrafter.progressive": (["scalecrafter.tau=0"], "scalecrafter.progressive=true"),
    "scalecrafter.noise_damped_dilation": (
        ["scalecrafter.noise_damped_tau=0"],
        "scalecrafter.noise_damped_dilation={mid_block: 3}",
    ),
}
# What comes after sampling, all at once.
AFTERWARDS = {
    "metrics.extractor": "metrics=inception",
    "metrics.weights": "metrics.weights=file",
    "metrics.resize": "metrics.resize=legacy",
    "metrics.reference": "metrics.reference=folder",
    "metrics.reference_count": "metrics.reference_count=99",
    "metrics.reference_seed": "metrics.reference_seed=99",
    "metrics.minimum_side": "metrics.minimum_side=99",
    "metrics.reference_minimum": "metrics.reference_minimum=9",
    "metrics.crops": "metrics.crops=null",
    "metrics.also": "metrics.also=[precision_recall]",
    "metrics.repetition": "metrics.repetition=null",
    "logger.name": "logger.name=wandb",
    "logger.project": "logger.project=other",
}
# Names, what names are made of, and what says where a model is from: its digest tells the rest.
NAMES = {"model.name", "method.name", "resolution.name", "model.id", "model.revision", "model.variant", "model.config"}
NAMES |= {"method.object", "paths.runs"}
OPEN = {"model.distance", "model.settings", "method.object", "method.published"}  # whose keys are not fixed
NAMES |= {f"experiment.{key}" for key in ("name", "claim", "expected", "prompts", "plot", "skip")}


class Brightness:
    """Another distance than the tiny pipeline's own."""

    name = "brightness"

    def __call__(self, images, others):
        return (images.mean((1, 2, 3)) - others.mean((1, 2, 3))).square()


@pytest.fixture(scope="module", autouse=True)
def classes_of_this_file():
    """May be named by ``_target_``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "OURS", (*compose.OURS, "tests."))
        yield


@pytest.fixture(scope="module")
def places(save_pipeline, tmp_path_factory):
    """What stands behind an @ above."""
    folder, tiny = tmp_path_factory.mktemp("places"), save_pipeline("tiny")
    other = StableDiffusionPipeline.from_pretrained(tiny, safety_checker=None)
    other.unet.conv_out.bias.data.fill_(0.5)
    other.save_pretrained(folder / "OTHER_WEIGHTS")
    shutil.copytree(tiny, folder / "SAME_WEIGHTS")
    shutil.copytree(tiny, folder / "EULER")
    index = json.loads((tiny / "model_index.json").read_text())
    euler = index | {"scheduler": ["diffusers", "EulerDiscreteScheduler"]}
    (folder / "EULER/model_index.json").write_text(json.dumps(euler))
    torch.manual_seed(7)
    tiny_vae().save_pretrained(folder / "OTHER_VAE")
    shutil.copytree(save_pipeline("sdxl"), folder / "SDXL")
    (folder / "PROMPTS").write_text("something else\n")
    (folder / "OTHER_PROMPTS").write_text("another thing\n")
    upscaler = tiny_upscaler(folder / "tokenizer")
    upscaler.save_pretrained(folder / "UPSCALER")
    shutil.copytree(folder / "UPSCALER", folder / "SAME_UPSCALER")
    upscaler.unet.conv_out.bias.data.fill_(0.5)
    upscaler.save_pretrained(folder / "OTHER_UPSCALER")
    return folder


@pytest.fixture(scope="module")
def sampled(save_pipeline, places, tmp_path_factory):
    """sampled(*overrides) -> (digest, the first prompt's image), once for equal overrides."""
    shared = tmp_path_factory.mktemp("sampled")

    @cache
    def sample(*overrides):
        tiny = [*tiny_overrides(save_pipeline("tiny"), shared), "prompts.limit=1"]
        given = [re.sub(r"@(\w+)", lambda name: str(places / name[1]), override) for override in overrides]
        run = build_run(compose_config([*tiny, *given]))
        folder = generate_run(run)
        record = read_records(folder)[0]
        return run.digest, np.asarray(Image.open(folder / record.file))

    return sample


@pytest.mark.parametrize("option", CHANGES)
def test_options_that_change_images_change_the_digest(sampled, option):
    needs, change = CHANGES[option]
    (digest, image), (other_digest, other) = (
        sampled(*needs),
        sampled(*needs, *(change.split(" ") if "prompts=" in change else [change])),
    )
    assert digest != other_digest
    assert image.shape != other.shape or (image != other).any()


def kept(sampled, needs, changes, folder):
    """Whether the changes keep the digest, with which they have to keep the image."""
    digest, image = sampled(*needs)
    other_digest, other = sampled(*needs, *changes, f"paths.runs={folder / 'other'}")
    assert np.abs(image.astype(int) - other).max() <= 1  # batches are summed in another order
    return digest == other_digest


# Those that need nothing to act are tested all at once too, and one by one in the slow tests. A shard without locks
# has a folder of its own.
AT_ONCE = [key for key, (needs, _) in KEEPS.items() if not needs and key != "shard"]


@pytest.mark.parametrize("option", [pytest.param(k, marks=pytest.mark.slow if k in AT_ONCE else ()) for k in KEEPS])
def test_options_that_keep_images_keep_the_digest(sampled, option, tmp_path):
    needs, change = KEEPS[option]
    assert kept(sampled, needs, [change], tmp_path)


def test_options_that_keep_images_keep_the_digest_together(sampled, tmp_path):
    assert kept(sampled, [], [KEEPS[option][1] for option in AT_ONCE], tmp_path)


def test_scores_and_loggers_keep_the_digest(sampled, tmp_path):
    digest, image = sampled()
    other_digest, other = sampled(*AFTERWARDS.values(), f"paths.runs={tmp_path / 'other'}")
    assert digest == other_digest
    assert (image == other).all()


def test_a_sampler_replaces_what_methods_say_of_the_same(save_pipeline, tmp_path):
    """FreeU given twice is refused; sizes that SDXL is told count once."""
    tiny, freeu = tiny_overrides(save_pipeline("sd15"), tmp_path), "sampler.freeu={b1: 1.5, b2: 1.6, s1: 0.5, s2: 0.2}"
    own = "scalecrafter.freeu={b1: 1.1, b2: 1.2, s1: 0.9, s2: 0.2}"
    with pytest.raises(ValueError, match="FreeU is given twice, by sampler.freeu and by the method"):
        build_run(compose_config([*tiny, freeu, own]))
    with pytest.raises(ValueError, match="sampler.freeu has b1, b2, s1, s2 and form"):
        build_run(compose_config([*tiny, "sampler.freeu={b1: 1, c: 2}"]))
    sdxl = [*tiny_overrides(save_pipeline("sdxl"), tmp_path), "method=sdedit", "sampler.size_condition=stage"]
    one, other = (
        build_run(compose_config([*sdxl, f"method.object.size_condition={own}"])) for own in ("base", "stage")
    )
    assert one.digest == other.digest


def test_every_option_is_listed():
    """Of the whole configuration, so that a new option needs a line above."""

    def options(node, prefix=""):
        for key, value in node.items():
            name = f"{prefix}{key}"
            if isinstance(value, dict) and value and name not in OPEN:
                yield from options(value, f"{name}.")
            else:
                yield name

    config = OmegaConf.to_container(compose_config([]), resolve=False)
    assert {*options(config)} == {name.split(",")[0] for name in (*CHANGES, *KEEPS, *AFTERWARDS, *NAMES)}
