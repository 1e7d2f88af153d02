"""A stand-in for the parts of ComfyUI that a node pack touches, written from the signatures in its sources: names,
arguments and the order of calls are ComfyUI's, loading and memory are left out. `samplers` stands for comfy.samplers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class ModelSamplingDiscrete(nn.Module):
    """Noise levels of Stable Diffusion, with the prediction of noise."""

    def __init__(self) -> None:
        super().__init__()
        alphas = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
        self.num_timesteps = 1000
        self.register_buffer("sigmas", torch.tensor(np.sqrt((1 - alphas) / alphas), dtype=torch.float32))

    def timestep(self, sigma: Tensor) -> Tensor:
        return (sigma.log()[:, None] - self.sigmas.log()).abs().argmin(dim=1)

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        return noise / (sigma[:, None, None, None] ** 2 + 1) ** 0.5

    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        return x - output * sigma[:, None, None, None]


class ModelSamplingContinuousEDM(nn.Module):
    """Without a training schedule."""

    def timestep(self, sigma: Tensor) -> Tensor:
        return 0.25 * sigma.log()


class BaseModel(nn.Module):
    def __init__(self, unet: nn.Module, unet_config: dict[str, Any]) -> None:
        super().__init__()
        self.diffusion_model = unet
        self.model_sampling = ModelSamplingDiscrete()
        self.model_config = SimpleNamespace(unet_config=unet_config)

    def apply_model(
        self, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None, control: Any = None,
        transformer_options: Any = None, **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        """The denoised latents, of noisy latents x and their sigmas t."""
        inner, timestep = self.model_sampling.calculate_input(t, x), self.model_sampling.timestep(t).float()
        options = {"control": control, "transformer_options": transformer_options}
        output = self.diffusion_model(inner, timestep, context=c_crossattn, **options, **kwargs)
        return self.model_sampling.calculate_denoised(t, output, x)


def attribute(obj: Any, path: str) -> Any:
    for name in path.split("."):
        obj = getattr(obj, name)
    return obj


class ModelPatcher:
    def __init__(self, model: BaseModel) -> None:
        self.model = model
        self.object_patches: dict[str, Any] = {}
        self.object_patches_backup: dict[str, Any] = {}
        self.model_options: dict[str, Any] = {"transformer_options": {}}

    def clone(self) -> ModelPatcher:
        clone = ModelPatcher(self.model)
        clone.object_patches = self.object_patches.copy()
        clone.object_patches_backup = self.object_patches_backup
        clone.model_options = copy.deepcopy(self.model_options)
        return clone

    def add_object_patch(self, name: str, obj: Any) -> None:
        self.object_patches[name] = obj

    def get_model_object(self, name: str) -> Any:
        return self.object_patches.get(name) or self.object_patches_backup.get(name) or attribute(self.model, name)

    def set_model_unet_function_wrapper(self, unet_wrapper_function: Callable[..., Any]) -> None:
        self.model_options["model_function_wrapper"] = unet_wrapper_function

    def set_model_sampler_cfg_function(self, function: Callable[..., Any]) -> None:
        self.model_options["sampler_cfg_function"] = function

    def set_model_sampler_post_cfg_function(self, function: Callable[..., Any]) -> None:
        functions = self.model_options.get("sampler_post_cfg_function", [])
        self.model_options["sampler_post_cfg_function"] = [*functions, function]

    def patch_model(self) -> BaseModel:
        for path, obj in self.object_patches.items():
            parent, _, name = path.rpartition(".")
            self.object_patches_backup.setdefault(path, attribute(self.model, path))
            setattr(attribute(self.model, parent), name, obj)
        return self.model

    def unpatch_model(self) -> None:
        for path, obj in self.object_patches_backup.items():
            parent, _, name = path.rpartition(".")
            setattr(attribute(self.model, parent), name, obj)
        self.object_patches_backup.clear()


def calc_cond_batch(
    model: BaseModel, conds: list[Any], x_in: Tensor, timestep: Tensor, model_options: dict[str, Any]
) -> list[Tensor]:
    """The denoised latents for each of ``conds``, all in one call, the last one first; zeros where one is None. A
    condition is a list of areas, here one for the whole image.
    """
    given = [(index, cond[0]["model_conds"]) for index, cond in enumerate(conds) if cond is not None][::-1]
    which = [index for index, _ in given]
    c = {name: torch.cat([cond[name] for _, cond in given]) for name in given[0][1]}
    c["transformer_options"] = model_options["transformer_options"] | {"cond_or_uncond": which}
    x, t = torch.cat([x_in] * len(which)), torch.cat([timestep] * len(which))
    if "model_function_wrapper" in model_options:
        parts = {"input": x, "timestep": t, "c": c, "cond_or_uncond": which}
        output = model_options["model_function_wrapper"](model.apply_model, parts)
    else:
        output = model.apply_model(x, t, **c)
    outputs = dict(zip(which, output.chunk(len(which)), strict=True))
    return [outputs.get(index, torch.zeros_like(x_in)) for index in range(len(conds))]


def sampling_function(
    model: BaseModel, x: Tensor, timestep: Tensor, uncond: Any, cond: Any, cond_scale: float, model_options: Any
) -> Tensor:
    """The denoised latents after guidance."""
    if math.isclose(cond_scale, 1.0) and not model_options.get("disable_cfg1_optimization", False):
        uncond = None
    cond_pred, uncond_pred = calc_cond_batch(model, [cond, uncond], x, timestep, model_options)
    common = {"cond_denoised": cond_pred, "uncond_denoised": uncond_pred, "cond_scale": cond_scale, "sigma": timestep}
    common |= {"model": model, "model_options": model_options, "input": x}
    if "sampler_cfg_function" in model_options:
        given = {"cond": x - cond_pred, "uncond": x - uncond_pred, "timestep": timestep, **common}
        result = x - model_options["sampler_cfg_function"](given)
    else:
        result = uncond_pred + (cond_pred - uncond_pred) * cond_scale
    for function in model_options.get("sampler_post_cfg_function", []):
        result = function({"denoised": result, "cond": cond, "uncond": uncond, **common})
    return result


samplers = SimpleNamespace(calc_cond_batch=calc_cond_batch)
