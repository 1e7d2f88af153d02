"""The method on a ComfyUI model, by what its `ModelPatcher` offers for that.

Object patches let the convolutions follow the state of a call, a wrapper of the U-Net announces that state from the
noise level, and a function after guidance damps its noise. Another clone of the same model is not affected.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
from torch import Tensor

from scalecrafter.comfyui.names import original_names
from scalecrafter.convolutions import find_convolutions
from scalecrafter.layers import FollowingConvolution
from scalecrafter.schedule import STABLE_DIFFUSION, log_sigmas, reference_step, timestep_value
from scalecrafter.settings import Settings
from scalecrafter.state import State, announced, state_at

LATENT_PX = 8  # pixels of an image for each of its latent, along a side


def patched(model: Any, settings: Settings, size: tuple[int, int]) -> Any:
    """A clone of a ``ModelPatcher`` that samples with ``settings``; ``model`` itself is left as it is.

    Args:
        model: a ``ModelPatcher`` with a U-Net of Stable Diffusion 1.x, 2.x or XL.
        settings: whose windows follow the noise level of each call, in the paper's 50 steps.
        size: (height, width) in pixels, which no call may exceed.

    Raises:
        ValueError: a model without a U-Net, or that is patched already, settings that do not fit it, or FreeU.
    """
    before = model.model_options.get("model_function_wrapper")
    if isinstance(getattr(before, "__self__", None), Patch):
        raise ValueError("ScaleCrafter is on this model already: use one node for each model")
    if settings.freeu is not None:
        raise ValueError("freeu in these settings is for diffusers: leave it out, and use ComfyUI's own FreeU node")
    unet = model.get_model_object("diffusion_model")
    table = {**settings.dilation, **settings.noise_damped_dilation}
    places = original_names(unet)
    clone = model.clone()
    for name, (conv,) in find_convolutions(unet, table, places).items():
        # Its class's own: the instance may have one of another clone, which is in use.
        plain = type(conv)._conv_forward.__get__(conv)
        following = FollowingConvolution(name, conv, plain)
        clone.add_object_patch(f"diffusion_model.{places[name]}._conv_forward", following)
    patch = Patch(model.model, settings, size, before)
    clone.set_model_unet_function_wrapper(patch.call)
    if settings.noise_damped_tau:
        clone.set_model_sampler_post_cfg_function(patch.damp)
    return clone


class Patch:
    """What the calls of one patched model do.

    Args:
        model: ComfyUI's ``BaseModel``, whose ``model_sampling`` says which timestep a noise level is.
        settings, size: see `patched`.
        before: the wrapper that another node has set.
    """

    def __init__(self, model: Any, settings: Settings, size: tuple[int, int], before: Any = None) -> None:
        self.model, self.settings, self.size, self.before = model, settings, size, before
        self.base_pass = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Patch:
        return self  # a ModelPatcher's clone copies its options deeply, which would copy the model

    def state(self, sigma: Tensor, *, base_pass: bool = False) -> State:
        """Of the layers at a noise level."""
        return state_at(self.settings, step_of(self.model.model_sampling, sigma), {}, base_pass=base_pass)

    def call(self, apply_model: Any, given: dict[str, Any]) -> Any:
        """ComfyUI's ``model_function_wrapper``: ``given`` are input (N, C, h, w) and timestep (N,), which are noisy
        latents and sigmas, and c, all other arguments of ``apply_model``.

        Raises:
            ValueError: a larger image than the settings are for. A smaller one is a part of it, as areas are.
        """
        height, width = (side * LATENT_PX for side in given["input"].shape[-2:])
        if height > self.size[0] or width > self.size[1]:
            raise ValueError(
                f"the ScaleCrafter node is set to {self.size[1]}x{self.size[0]} (width x height), and the image is "
                f"{width}x{height}: give the node the image's size"
            )
        with announced(self.state(given["timestep"], base_pass=self.base_pass)):
            if self.before is not None:
                return self.before(apply_model, given)
            return apply_model(given["input"], given["timestep"], **given["c"])

    def damp(self, given: dict[str, Any]) -> Tensor:
        """ComfyUI's ``post_cfg_function``, noise-damped guidance (paper section 3.4).

        Denoised latents are affine in the predicted noise, so base(x) + w (dilated(x, prompt) - dilated(x)) is what
        guidance has given, plus base(x) - dilated(x).

        Raises:
            ValueError: guidance of another kind.
        """
        denoised: Tensor = given["denoised"]
        base = self.state(given["sigma"], base_pass=True)
        if (
            step_of(self.model.model_sampling, given["sigma"]) >= self.settings.noise_damped_tau
            or base == self.state(given["sigma"])  # the same prediction
            or given["uncond"] is None
            or math.isclose(given.get("cond_scale", math.inf), 1.0)
        ):
            return denoised
        if "sampler_cfg_function" in given["model_options"]:
            raise ValueError(
                "noise-damped guidance is for ComfyUI's own guidance, which another node has replaced: remove that "
                "node, or use settings with noise_damped_tau 0"
            )
        samplers = importlib.import_module("comfy.samplers")  # there is nothing to install that has it
        self.base_pass = True
        try:
            (base_uncond,) = samplers.calc_cond_batch(
                given["model"], [given["uncond"]], given["input"], given["sigma"], given["model_options"]
            )
        finally:
            self.base_pass = False
        return denoised + base_uncond - given["uncond_denoised"]


def step_of(sampling: Any, sigma: Tensor) -> int:
    """The paper's step index (`reference_step`) at a noise level, which is the same for a whole batch.

    Args:
        sampling: ComfyUI's ``ModelSamplingDiscrete``, which has a training schedule, or another one, whose levels are
            looked up in that of Stable Diffusion.
        sigma: noise over signal.
    """
    if hasattr(sampling, "num_timesteps"):
        return reference_step(timestep_value(sampling.timestep(sigma)), sampling.num_timesteps)
    levels = log_sigmas(STABLE_DIFFUSION)
    level = math.log(max(timestep_value(sigma), 1e-9))
    return reference_step(float(np.interp(level, levels, np.arange(len(levels)))))
