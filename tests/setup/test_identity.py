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
from experiments.setup.runs import build_run
from tests.setup.options import AFTERWARDS, CHANGES, KEEPS, NAMES, OPEN
from tests.tiny import tiny_overrides, tiny_upscaler, tiny_vae

pytestmark = pytest.mark.usefixtures("own_convolutions")


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
