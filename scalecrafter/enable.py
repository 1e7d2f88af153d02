"""Enable and disable the method on a user's pipeline.

A pre-forward hook at the U-Net's root reads the timestep of each call and decides what each layer does in it; every
dilated convolution looks that up in its own ``_conv_forward``. This is the innermost place where the operation can be
replaced, so offloading hooks, LoRA layers and other wrappers of a convolution's ``forward`` keep working. A second
root hook, after the call, damps the noise of guidance. `Handle.disable` restores everything, and the pipeline is bit
for bit what it was. Load LoRA weights before calling `enable`.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from scalecrafter.auto import auto_settings
from scalecrafter.batch import batch_sizes, map_batch
from scalecrafter.convolutions import find_convolutions
from scalecrafter.disperse import Dispersion
from scalecrafter.freeu import freeu_hook, freeu_plan
from scalecrafter.guidance import calling_pipeline, check_damping_possible, is_guided, noise_damped
from scalecrafter.patching import Tied, replaced_attribute, tied_hook
from scalecrafter.pipeline import (
    check_sides,
    check_size,
    check_unet,
    is_above_training,
    training_size,
    vae_scale_factor,
)
from scalecrafter.redilate import Factor, redilated_conv2d
from scalecrafter.schedule import step_of_call, training_timestep
from scalecrafter.settings import Settings

# U-Nets with the method on and their handles, which the U-Nets' own hooks keep alive.
_enabled: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Handle]] = weakref.WeakKeyDictionary()


class Handle:
    """The method enabled on one U-Net: a context manager, or call `disable`, any number of times.

    Attributes:
        settings: in force at the size that was given, or at that of the latest call.
    """

    def __init__(self, pipe: Any, settings_at: Callable[[int, int], Settings], size: tuple[int, int] | None) -> None:
        self._pipe, self._unet = pipe, pipe.unet
        self._settings_at, self._required, self._size = cache(settings_at), size, size
        # State of the current U-Net call: the factor of each dilated layer, and which layers are dispersed.
        self._factors: dict[str, Factor] = {}
        self._dispersed: tuple[str, ...] = ()
        self._step, self._damped, self._base_pass, self._warned = 0, False, False, False
        self._unconditional: tuple[tuple[Any, ...], dict[str, Any]] = (), {}  # arguments of the base pass
        self._layers = ExitStack()  # what `settings` change
        with ExitStack() as changes:
            before, after = tied_hook(self._before_call), tied_hook(self._after_call)
            changes.callback(self._unet.register_forward_pre_hook(before, with_kwargs=True).remove)
            changes.callback(self._unet.register_forward_hook(after, with_kwargs=True).remove)
            changes.callback(self._layers.close)
            self.settings = Settings()
            if size is not None:
                self._adopt(self._settings_at(*size))
            _enabled[self._unet] = weakref.ref(self)
            changes.callback(_enabled.pop, self._unet, None)
            self._changes = changes.pop_all()

    def _adopt(self, settings: Settings) -> None:
        """Change the layers as ``settings`` say, and no others; ValueError if they do not fit the U-Net."""
        convolutions = find_convolutions(self._unet, {**settings.dilation, **settings.noise_damped_dilation})
        if settings.noise_damped_tau:
            check_damping_possible(self._pipe)
        self._layers.close()
        self.settings = settings
        if settings.freeu is not None:
            for resnet, below, b, s in freeu_plan(self._unet, settings.freeu):
                hook = tied_hook(freeu_hook(below, b, s))
                self._layers.callback(resnet.register_forward_pre_hook(hook).remove)
        for name, group in convolutions.items():
            for conv in group:
                self._layers.enter_context(replaced_attribute(conv, "_conv_forward", self._conv_forward(name, conv)))

    def _follow(self, size: tuple[int, int]) -> None:
        """Settle what is done in a call for images of this size in pixels."""
        if size == self._size:
            return
        if self._required is not None:
            raise ValueError(
                f"the method is enabled for {shown(self._required)} (height x width), and the pipeline was called at "
                f"{shown(size)}: call it at that size, or enable the method without height and width"
            )
        self._adopt(self._settings_at(*size))
        self._size = size

    def _is_guided(self, batch: int) -> bool:
        """`is_guided`, with one warning where a call is not."""
        guided = is_guided(calling_pipeline(self._unet) or self._pipe, batch)
        if not guided and not self._warned:
            self._warned = True
            warnings.warn("noise damping is off: without guidance there is nothing to damp", stacklevel=2)
        return guided

    def _before_call(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sample = kwargs["sample"] if "sample" in kwargs else args[0]
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
        factor = vae_scale_factor(self._pipe)
        self._follow((sample.shape[-2] * factor, sample.shape[-1] * factor))
        self._step = step_of_call(self._pipe.scheduler, timestep)  # the current one: it may be replaced at any time
        if not self._base_pass:
            self._damped = self._step < self.settings.noise_damped_tau and self._is_guided(len(sample))
            if self._damped:  # taken before the call, which empties the list of an adapter's residuals
                self._unconditional = map_batch((args, kwargs), batch_sizes(sample), lambda both: both.chunk(2)[0])
        self._factors, self._dispersed = self.settings.at(self._step, base_pass=self._base_pass)

    def _after_call(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        prediction = output[0]
        if prediction.dtype == torch.float16 and not prediction.isfinite().all():
            raise ValueError(
                "the U-Net returned NaN or infinity in half precision: load the pipeline in bfloat16 or float32"
            )
        if self._base_pass or not self._damped:
            return None
        self._base_pass = True
        try:
            args, kwargs = self._unconditional
            base = unet(*args, **kwargs)[0]
        finally:
            self._base_pass, self._unconditional = False, ((), {})
        damped = torch.cat(noise_damped(base, *prediction.chunk(2)))
        return (damped,) if isinstance(output, tuple) else type(output)(sample=damped)

    def _conv_forward(self, name: str, conv: nn.Conv2d) -> Any:
        """The replacement of one convolution's ``_conv_forward``."""
        plain, settings = conv._conv_forward, self.settings
        disperses = settings.dispersed_tau > 0 and name in settings.dispersed
        side, size, eta = conv.kernel_size[0], settings.dispersed_size, settings.dispersion_eta
        disperse = Dispersion(side, size, eta) if disperses else None

        def conv_forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            d = self._factors.get(name)
            if d is None:
                return plain(x, weight, bias)
            if disperse is not None and name in self._dispersed:
                weight, d = disperse(weight, d)
            return redilated_conv2d(x, weight, bias, dilation=d, stride=conv.stride)  # type: ignore[arg-type]

        return Tied(conv_forward, lambda memo: type(conv)._conv_forward.__get__(memo[id(conv)]))

    def disable(self) -> None:
        """Restore the pipeline."""
        self._changes.close()

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disable()


def shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def check_can_be_enabled(pipe: Any) -> None:
    """ValueError if the pipeline has no suitable U-Net or scheduler, or the method is already enabled on it."""
    check_unet(pipe)
    if pipe.unet in _enabled:
        raise ValueError("the method is already enabled on this pipeline: call scalecrafter.disable(pipe) first")
    training_timestep(pipe.scheduler, 1.0)


def check_pipeline(pipe: Any, height: int, width: int) -> None:
    """`check_can_be_enabled`; ValueError also for a size that cannot be sampled, or is below the training area."""
    check_can_be_enabled(pipe)
    check_size(pipe, height, width)


def enable(
    pipe: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    settings: str | Path | Mapping[str, Any] | Settings = "auto",
) -> Handle:
    """Enable ScaleCrafter for sampling above the training resolution.

    Args:
        pipe: any pipeline with a U-Net at ``.unet`` (SD 1.x, 2.x, SDXL: text-to-image, img2img, inpaint, ControlNet;
            video: AnimateDiff, ModelScope, Stable Video Diffusion), with any scheduler and number of steps.
        height, width: size of the images to be sampled, in pixels; calls at another size raise. Without them each
            call is sampled with the settings for its own size, and at the training area or below by the plain model.
        settings: "auto" (chosen by model family and size, see `auto_settings`), a `Settings`, or what `Settings.load`
            accepts: a name of `available_settings`, the path of a YAML file, or a parsed mapping.

    Returns:
        A `Handle`: use it as a context manager, or keep it and call `Handle.disable`.

    Raises:
        ValueError: unsupported or already enabled pipeline, size that does not fit the model, or settings that do not
            exist or do not fit. The pipeline is left unchanged. Later, when the pipeline is called: another size than
            the given one, guidance of a kind that cannot be damped, or NaN from the U-Net in half precision.
    """
    check_can_be_enabled(pipe)
    chosen = settings if isinstance(settings, Settings) or settings == "auto" else Settings.load(settings)

    def settings_at(height: int, width: int) -> Settings:
        return chosen if isinstance(chosen, Settings) else auto_settings(pipe, height, width)

    if height is not None and width is not None:
        check_sides(pipe, height, width)
        return Handle(pipe, settings_at, (height, width))
    if height is not None or width is not None:
        raise ValueError("height and width are given together, or neither")
    train_height, train_width = training_size(pipe)
    find_convolutions(pipe.unet, settings_at(2 * train_height, 2 * train_width).dilation)  # what does not fit raises
    return Handle(pipe, lambda h, w: settings_at(h, w) if is_above_training(pipe, h, w) else Settings(), None)


def enabled_handle(pipe: Any) -> Handle | None:
    """The handle that is enabled on the pipeline's U-Net."""
    return _enabled[pipe.unet]() if pipe.unet in _enabled else None


def active(pipe: Any) -> Settings | None:
    """The settings that are enabled on a pipeline, or on another one that shares its U-Net; None if there are none."""
    handle = enabled_handle(pipe)
    return None if handle is None else handle.settings


def disable(pipe: Any) -> None:
    """Restore a pipeline without its handle, which may be lost; nothing happens if the method is not enabled on it."""
    handle = enabled_handle(pipe)
    if handle is not None:
        handle.disable()
