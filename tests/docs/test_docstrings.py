"""What users call says what it takes: every argument, with a unit or a shape."""

import inspect
import re

import pytest

import scalecrafter
from baselines.method import Calls, Method, Request, UNetMethod
from baselines.sampler import Sampler
from eval.fid import features_to_fid
from eval.kid import features_to_kid
from eval.score import score_features
from eval.uncertainty import Estimate, estimate_fid
from scalecrafter.comfyui.names import original_names
from scalecrafter.comfyui.nodes import ScaleCrafter
from scalecrafter.comfyui.patch import patched
from scalecrafter.decode import tiled_decoding
from scalecrafter.diffusers import StableDiffusionPipeline
from scalecrafter.schedule import reference_step

LIBRARY = [getattr(scalecrafter, name) for name in scalecrafter.__all__ if name != "Handle"]
OTHERS = [tiled_decoding, reference_step, Request, Sampler, Calls, Method.generate, UNetMethod.enable]
OTHERS += [features_to_fid, features_to_kid, score_features, Estimate, estimate_fid]
OTHERS += [StableDiffusionPipeline.__call__, ScaleCrafter.patch, patched, original_names]
PUBLIC = [thing for thing in LIBRARY + OTHERS if set(inspect.signature(thing).parameters) - {"self"}]


def described(thing):
    """Argument -> its lines in the section "Args", joined."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.getdoc(thing) or "", re.MULTILINE | re.DOTALL)
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", section[1] if section else "", re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in entries}


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__qualname__)
def test_every_argument_is_described(thing):
    arguments = set(inspect.signature(thing).parameters) - {"self"}
    found = described(thing)
    assert set(found) == arguments
    for name, text in found.items():
        annotation = str(inspect.signature(thing).parameters[name].annotation)
        if re.match(r"Tensor$|np\.ndarray|<class 'numpy.ndarray'>", annotation):
            assert re.search(r"\(\w.*\)|shape", text), f"{name}: no shape"
        if name in {"height", "width"}:
            assert re.search(r"pixels|latent", text), f"{name}: no unit"


@pytest.mark.parametrize("name", ["redilated_conv2d", "dispersion_transform", "disperse_kernel", "noise_damped"])
def test_parts_of_the_method_name_their_section_of_the_paper(name):
    function = getattr(scalecrafter, name)
    assert re.search(r"paper section 3\.[234]", inspect.getdoc(function) or "")
