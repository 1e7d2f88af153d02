"""Switching the method on and off on a user's pipeline.

One pre-forward hook at the U-Net's root reads the timestep of each call and works out what each layer does in it; each
dilated convolution consults that in its own ``_conv_forward``. That is the innermost place where the operation can be
replaced: offloading hooks, LoRA layers and anything else around a convolution's ``forward`` keep working. A second
root hook, after the call, damps the noise of guidance. `disable` puts back what was there, and the pipeline is bit for
bit what it was. LoRA weights have to be loaded before `enable`.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from scalecrafter.batch import map_batch
from scalecrafter.convolutions import find_convolutions
from scalecrafter.disperse import disperse_kernel, dispersion_transform
from scalecrafter.freeu import freeu_hook, freeu_plan
from scalecrafter.guidance import check_damping_possible, check_guidance, noise_damped
from scalecrafter.pipeline import check_size, check_unet
from scalecrafter.redilate import Factor, per_axis, redilated_conv2d
from scalecrafter.schedule import reference_step, timestep_value
from scalecrafter.settings import Settings, resolve_settings

_enabled: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class Handle:
    """The method at work on one U-Net: a context manager, or call `disable`, which may be done more than once."""

    def __init__(self, pipe: Any, settings: Settings) -> None:
        self.settings = settings
        self._pipe, self._unet = pipe, pipe.unet
        self._train_timesteps = pipe.scheduler.config.num_train_timesteps
        convolutions = find_convolutions(self._unet, {**settings.dilation, **settings.noise_damped_dilation})
        if settings.noise_damped_tau:
            check_damping_possible(pipe)
        # What the call under way does: the factor of each dilated layer, and which layers are dispersed.
        self._factors: dict[str, Factor] = {}
        self._dispersed: tuple[str, ...] = ()
        self._step, self._base_pass = 0, False
        # With each convolution, what it had of its own before (another tool's patch), or None.
        self._patched: list[tuple[nn.Conv2d, Any]] = []
        self._hooks = [self._unet.register_forward_pre_hook(self._before_call, with_kwargs=True)]
        self._hooks.append(self._unet.register_forward_hook(self._after_call, with_kwargs=True))
        for name, group in convolutions.items():
            for conv in group:
                self._dilate(name, conv)
        if settings.freeu is not None:
            for resnet, below, b, s in freeu_plan(self._unet, settings.freeu):
                self._hooks.append(resnet.register_forward_pre_hook(freeu_hook(below, b, s)))
        _enabled.add(self._unet)
        self._active = True

    def _before_call(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        timestep = timestep_value(kwargs["timestep"] if "timestep" in kwargs else args[1])
        self._step = reference_step(timestep, self._train_timesteps)
        if not self._base_pass and self._step < self.settings.noise_damped_tau:
            check_guidance(self._pipe, len(kwargs["sample"] if "sample" in kwargs else args[0]))
        self._factors, self._dispersed = self.settings.at(self._step, base_pass=self._base_pass)

    def _after_call(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        prediction = output[0]
        if prediction.dtype == torch.float16 and not prediction.isfinite().all():
            raise ValueError(
                "the U-Net returned NaN or infinity in half precision: load the pipeline in bfloat16 or float32"
            )
        if self._base_pass or self._step >= self.settings.noise_damped_tau:
            return None
        self._base_pass = True
        try:
            args, kwargs = map_batch((args, kwargs), len(prediction), lambda pairs: pairs.chunk(2)[0])
            base = unet(*args, **kwargs)[0]
        finally:
            self._base_pass = False
        damped = torch.cat(noise_damped(base, *prediction.chunk(2)))
        return (damped,) if isinstance(output, tuple) else type(output)(sample=damped)

    def _dilate(self, name: str, conv: nn.Conv2d) -> None:
        plain, settings = conv._conv_forward, self.settings
        disperses = settings.dispersed_tau > 0 and name in settings.dispersed
        kernel = DispersedKernel(settings, conv.kernel_size[0]) if disperses else None
        self._patched.append((conv, conv.__dict__.get("_conv_forward")))

        def conv_forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            d = self._factors.get(name)
            if d is None:
                return plain(x, weight, bias)
            if kernel is not None and name in self._dispersed:
                weight, d = kernel(weight, d)
            return redilated_conv2d(x, weight, bias, dilation=d, stride=conv.stride)  # type: ignore[arg-type]

        conv._conv_forward = conv_forward  # type: ignore[method-assign, assignment]

    def disable(self) -> None:
        """Restore the pipeline."""
        for hook in self._hooks:
            hook.remove()
        if self._active:
            for conv, own in self._patched:
                if own is None:
                    del conv._conv_forward
                else:
                    conv._conv_forward = own  # type: ignore[method-assign]
            _enabled.discard(self._unet)
        self._active = False

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disable()


class DispersedKernel:
    """The dispersed kernel of one convolution, made at its first use, which is after offloading has brought the weight
    to its device. It spans what the factor ``scale`` would span, so the factor is divided by that.
    """

    def __init__(self, settings: Settings, side: int) -> None:
        self.scale = (settings.dispersed_size - 1) / (side - 1)
        self.transform = dispersion_transform(
            side, settings.dispersed_size, scale=self.scale, eta=settings.dispersion_eta
        )
        self.made: Tensor | None = None

    def __call__(self, weight: Tensor, factor: Factor) -> tuple[Tensor, Factor]:
        if self.made is None:
            self.made = disperse_kernel(weight, self.transform)
        self.made = self.made.to(weight)
        vertical, horizontal = per_axis(factor)
        return self.made, (vertical / self.scale, horizontal / self.scale)


def check_pipeline(pipe: Any, height: int, width: int) -> None:
    """ValueError if the pipeline has no fitting U-Net, already has the method, or cannot make this size."""
    check_unet(pipe)
    if pipe.unet in _enabled:
        raise ValueError("the method is already enabled on this pipeline: call disable() on the first handle")
    check_size(pipe, height, width)


def enable(pipe: Any, *, height: int, width: int, settings: str | Path | Settings = "auto") -> Handle:
    """Let a diffusers pipeline draw at ``height`` x ``width`` pixels what it was trained to draw smaller.

    Args:
        pipe: any pipeline with a UNet2DConditionModel at ``.unet`` (SD 1.x, 2.x, SDXL; text-to-image, img2img,
            inpaint, ControlNet), with any scheduler and number of steps.
        height, width: size in pixels of the pictures that will be asked for.
        settings: "auto" (from the model's family and the size), a name of `available_settings`, the path of a YAML
            file, or a `Settings`.

    Returns:
        A `Handle`: use it as a context manager, or keep it and call `Handle.disable`.

    Raises:
        ValueError: the pipeline is not of that kind or already enabled, the size does not fit the model, or the
            settings do not exist or do not fit. The pipeline is then as it was. Later, from the pipeline's call:
            noise-damped guidance without classifier-free guidance, or NaN from the U-Net in half precision.
    """
    check_pipeline(pipe, height, width)
    return Handle(pipe, resolve_settings(settings, pipe, height, width))
