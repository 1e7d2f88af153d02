"""The method on one U-Net: what its calls do in each layer, and how it is put on and taken off.

A pre-forward hook at the U-Net's root reads the timestep of each call and decides what each layer does in it; every
dilated convolution looks that up in its own ``_conv_forward``. This is the innermost place where the operation can be
replaced, so offloading hooks, LoRA layers and other wrappers of a convolution's ``forward`` keep working. A second
root hook, after the call, damps the noise of guidance. What a call does is kept for its thread and until it ends:
calls in other threads, and layers outside a call, do not see it.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from scalecrafter.batch import batch_sizes, map_batch
from scalecrafter.convolutions import find_convolutions
from scalecrafter.disperse import Dispersion
from scalecrafter.freeu import amplified, freeu_plan
from scalecrafter.guidance import Caller, caller_of, check_damping_possible, noise_damped
from scalecrafter.patching import Tied, replaced_attribute, tied_hook
from scalecrafter.pipeline import vae_scale_factor
from scalecrafter.redilate import Factor, redilated_conv2d
from scalecrafter.schedule import step_of_call
from scalecrafter.settings import Settings

# U-Nets with the method on and their handles, which the U-Nets' own hooks keep alive.
enabled: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Handle]] = weakref.WeakKeyDictionary()
dispersion = cache(Dispersion)
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Call:
    """What one call of the U-Net does.

    Args:
        settings: in force at its size.
        step: of the paper's 50.
        factors: of the layers that are dilated.
        dispersed: names of those that are dispersed as well.
        freeu: of each resnet that FreeU acts on, see `amplified`.
        unconditional: arguments of the base pass that follows, or None.
    """

    settings: Settings
    step: int
    factors: Mapping[str, Factor]
    dispersed: tuple[str, ...]
    freeu: Mapping[nn.Module, tuple[int, float, float]] = field(default_factory=dict)
    unconditional: Arguments | None = None


class Now(threading.local):
    """The call that this thread is in, and the one whose base pass it is about to do."""

    call: Call | None = None
    damped: Call | None = None


class Handle:
    """The method enabled on one U-Net: a context manager, or call `disable`, any number of times.

    Attributes:
        settings: in force at the size that was given, or at that of the latest call.

    Raises:
        ValueError: the settings do not fit the pipeline, which is left unchanged; so it is after any other error.
    """

    def __init__(
        self, pipe: Any, settings_at: Callable[[int, int], Settings], size: tuple[int, int], *, only: bool
    ) -> None:
        """``settings_at`` (height, width) in pixels; ``size``: expected, and the ``only`` one that calls may have."""
        self._pipe, self._unet = pipe, pipe.unet
        self._settings_at, self._only = cache(settings_at), size if only else None
        self._now, self._lock = Now(), threading.Lock()
        self._reached: set[nn.Module] = set()
        self._warned = False
        first = self._settings_at(*size)
        if first.noise_damped_tau:
            check_damping_possible(pipe)
        with ExitStack() as self._changes:
            before, after = tied_hook(self._before_call), tied_hook(self._after_call)
            undo = self._changes.callback
            undo(self._unet.register_forward_pre_hook(before, with_kwargs=True).remove)
            undo(self._unet.register_forward_hook(after, with_kwargs=True, always_call=True).remove)
            self._reach(first)
            enabled[self._unet] = weakref.ref(self)
            undo(enabled.pop, self._unet, None)
            self.settings = first if only else Settings()
            self._changes = self._changes.pop_all()

    def _reach(self, settings: Settings) -> dict[nn.Module, tuple[int, float, float]]:
        """Let every layer that ``settings`` change follow the calls, those of adapters loaded meanwhile too; returns
        FreeU's part of a call. A layer that nothing changes in a call works as before, so that an error between two
        layers does no harm. ValueError if the settings do not fit the U-Net.
        """
        with self._lock:
            named = find_convolutions(self._unet, {**settings.dilation, **settings.noise_damped_dilation})
            for name, group in named.items():
                for conv in filter(self._is_new, group):
                    if name in settings.dispersed:  # found once, and before a plan's tensors without content
                        dispersion(conv.kernel_size[0], settings.dispersed_size, settings.dispersion_eta)
                    replacement = self._conv_forward(name, conv)
                    self._changes.enter_context(replaced_attribute(conv, "_conv_forward", replacement))
                    self._reached.add(conv)
            freeu = {} if settings.freeu is None else freeu_plan(self._unet, settings.freeu)
            for resnet in filter(self._is_new, freeu):
                hook = resnet.register_forward_pre_hook(tied_hook(self._freeu_hook))
                self._changes.callback(hook.remove)
                self._reached.add(resnet)
        return freeu

    def _is_new(self, layer: nn.Module) -> bool:
        return layer not in self._reached

    def _settings_of_call(self, sample: Tensor) -> Settings:
        """For its size; ValueError if the method is enabled for another one."""
        factor = vae_scale_factor(self._pipe)
        size = sample.shape[-2] * factor, sample.shape[-1] * factor
        if self._only not in (None, size):
            raise ValueError(
                f"the method is enabled for {shown(self._only)} (height x width), and the pipeline was called at "
                f"{shown(size)}: call it at that size, or enable the method without height and width"
            )
        return self._settings_at(*size)

    def _is_guided(self, caller: Caller, batch: int) -> bool:
        """`Caller.is_guided`, with one warning where a call is not."""
        guided = caller.is_guided(batch)
        if not guided and not self._warned:
            self._warned = True
            warnings.warn("noise damping is off: without guidance there is nothing to damp", stacklevel=2)
        return guided

    def _before_call(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        damped = self._now.damped
        if damped is not None:
            passes = damped.settings.at(damped.step, base_pass=True)
            self._now.call = Call(damped.settings, damped.step, *passes, damped.freeu)
            return
        self._now.call = None
        check_no_checkpoints(unet)
        sample = kwargs["sample"] if "sample" in kwargs else args[0]
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
        caller = caller_of(unet, self._pipe)
        settings = self._settings_of_call(sample)
        freeu = self._reach(settings)
        step = step_of_call(caller.pipe.scheduler, timestep)
        unconditional = None
        if step < settings.noise_damped_tau and self._is_guided(caller, len(sample)):
            # Taken before the call, which empties the list of an adapter's residuals.
            unconditional = map_batch((args, kwargs), batch_sizes(sample), lambda both: both.chunk(2)[0])
        self.settings = settings
        self._now.call = Call(settings, step, *settings.at(step), freeu, unconditional)

    def _after_call(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        call, self._now.call = self._now.call, None
        if call is None or output is None:  # the call failed
            return None
        prediction = output[0]
        check_finite(prediction)
        if call.unconditional is None:
            return None
        self._now.damped = call
        try:
            args, kwargs = call.unconditional
            base = unet(*args, **kwargs)[0]
        finally:
            self._now.damped = None
        damped = torch.cat(noise_damped(base, *prediction.chunk(2)))
        return (damped,) if isinstance(output, tuple) else type(output)(sample=damped)

    def _conv_forward(self, name: str, conv: nn.Conv2d) -> Tied:
        """The replacement of one convolution's ``_conv_forward``."""
        plain, side = conv._conv_forward, conv.kernel_size[0]

        def conv_forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            call = self._now.call
            d = None if call is None else call.factors.get(name)
            if call is None or d is None:
                return plain(x, weight, bias)
            if name in call.dispersed:
                disperse = dispersion(side, call.settings.dispersed_size, call.settings.dispersion_eta)
                weight, d = disperse(weight, d)
            return redilated_conv2d(x, weight, bias, dilation=d, stride=conv.stride)  # type: ignore[arg-type]

        return Tied(conv_forward, lambda memo: type(conv)._conv_forward.__get__(memo[id(conv)]))

    def _freeu_hook(self, resnet: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        call = self._now.call
        if call is None or resnet not in call.freeu:
            return None
        return amplified(args[0], *call.freeu[resnet]), *args[1:]

    def disable(self) -> None:
        """Restore the pipeline: changes are undone in reverse order."""
        self._changes.close()

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disable()


def check_no_checkpoints(unet: Any) -> None:
    """ValueError if gradients will be computed by evaluating layers again, after the call."""
    if torch.is_grad_enabled() and unet.is_gradient_checkpointing:
        raise ValueError(
            "gradient checkpointing evaluates layers again after the call, where the method does not know the "
            "timestep: use unet.disable_gradient_checkpointing()"
        )


def check_finite(prediction: Tensor) -> None:
    """ValueError for a float16 overflow, which would give a black image."""
    if prediction.dtype == torch.float16 and not prediction.isfinite().all():
        raise ValueError(
            "the U-Net returned NaN or infinity in half precision: load the pipeline in bfloat16 or float32"
        )


def shown(size: tuple[int, int] | None) -> str:
    return "" if size is None else f"{size[0]}x{size[1]}"
