"""The method on one U-Net: what its calls do, and how it is put on and taken off.

A pre-forward hook at the U-Net's root reads the timestep of each call and announces what each layer does in it; a
second root hook, after the call, damps the noise of guidance. What a call does is known to its own thread and until it
ends: calls in other threads, and layers outside a call, do not see it. Both hooks run outside compiled graphs.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from scalecrafter.batch import batch_sizes, map_batch, sample_and_timestep
from scalecrafter.guidance import Caller, caller_of, check_damping_possible, noise_damped
from scalecrafter.layers import Layers
from scalecrafter.patching import OutsideGraphs
from scalecrafter.pipeline import uncompiled, vae_scale_factor
from scalecrafter.schedule import host_values, step_of_call
from scalecrafter.settings import Settings
from scalecrafter.state import State, announce, announced, state_at

# U-Nets with the method on and their handles, which the U-Nets' own hooks keep alive.
enabled: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Handle]] = weakref.WeakKeyDictionary()
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Call:
    """What follows a call of the U-Net.

    Args:
        checked: whether it may have overflowed and is the last one of a sampling, as far as is known.
        base: state of the layers in the base pass, if there is one.
        unconditional: arguments of that pass.
    """

    checked: bool
    base: State | None = None
    unconditional: Arguments = ((), {})


class Now(threading.local):
    """The call that this thread is in, and whether it is in the base pass after it."""

    call: Call | None = None
    base_pass = False


class Handle:
    """The method enabled on one U-Net: a context manager, or call `disable`, any number of times.

    Attributes:
        settings (Settings): in force at the size that was given, or at that of the latest call.

    Raises:
        ValueError: the settings do not fit the pipeline, which is left unchanged; so it is after any other error.
    """

    def __init__(
        self, pipe: Any, settings_at: Callable[[int, int], Settings], size: tuple[int, int], *, only: bool
    ) -> None:
        """``settings_at`` (height, width) in pixels; ``size``: expected, and the ``only`` one that calls may have."""
        self._pipe, self._unet, self._called = pipe, uncompiled(pipe.unet), pipe.unet
        self._settings_at, self._only = cache(settings_at), size if only else None
        self._now = Now()
        self._warned = False
        first = self._settings_at(*size)
        if first.noise_damped_tau:
            check_damping_possible(pipe)
        with ExitStack() as self._changes:
            before, after = OutsideGraphs(self._before_call), OutsideGraphs(self._after_call)
            undo = self._changes.callback
            undo(self._unet.register_forward_pre_hook(before, with_kwargs=True).remove)
            undo(self._unet.register_forward_hook(after, with_kwargs=True, always_call=True).remove)
            self._layers = self._changes.enter_context(Layers(self._unet))
            self._layers.reach(first)
            enabled[self._unet] = weakref.ref(self)
            undo(enabled.pop, self._unet, None)
            self.settings = first if only else Settings()
            self._changes = self._changes.pop_all()

    def _settings_of_call(self, sample: Tensor) -> Settings:
        """For its size; ValueError if the method is enabled for another one."""
        factor = vae_scale_factor(self._pipe)
        size = sample.shape[-2] * factor, sample.shape[-1] * factor
        if self._only is not None and self._only != size:
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
        if self._now.base_pass:
            return
        self._now.call = None
        check_no_checkpoints(unet)
        sample, timestep = sample_and_timestep(args, kwargs)
        caller = caller_of(unet, self._pipe)
        settings = self._settings_of_call(sample)
        may_overflow = sample.dtype == torch.float16 or torch.is_autocast_enabled("cuda")
        t, *last = host_values(*([timestep, caller.last] if may_overflow and caller.last is not None else [timestep]))
        step = step_of_call(caller.pipe.scheduler, t)
        freeu = self._layers.reach(settings) if settings.acts_at(step) else {}
        state, base = state_at(settings, step, freeu), None
        unconditional: Arguments = ((), {})
        if step < settings.noise_damped_tau and self._is_guided(caller, len(sample)):
            base = state_at(settings, step, freeu, base_pass=True)
            if base == state:  # the same prediction
                base = None
            else:  # taken before the call, which empties the list of an adapter's residuals
                unconditional = map_batch((args, kwargs), batch_sizes(sample), lambda both: both.chunk(2)[0])
        self.settings = settings
        self._now.call = Call(may_overflow and last in ([], [t]), base, unconditional)
        announce(state)

    def _after_call(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if self._now.base_pass:
            return None
        call, self._now.call = self._now.call, None
        announce(State())
        if call is None or output is None:  # the call failed
            return None
        prediction = output[0] if call.base is None else self._damped(call.base, call.unconditional, output[0])
        if call.checked:
            check_finite(prediction)
        if call.base is None:
            return None
        return (prediction,) if isinstance(output, tuple) else type(output)(sample=prediction)

    def _damped(self, base: State, unconditional: Arguments, prediction: Tensor) -> Tensor:
        """The prediction of noise-damped guidance, from that of the dilated model; evaluates the base pass."""
        args, kwargs = unconditional
        self._now.base_pass = True
        try:
            with announced(base):
                base_uncond = self._called(*args, **kwargs)[0]
        finally:
            self._now.base_pass = False
        return torch.cat(noise_damped(base_uncond, *prediction.chunk(2)))

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
    """ValueError for a float16 overflow, which would give a black image. A sampling does not recover from one, so it
    is enough to look at its last prediction.
    """
    if prediction.dtype == torch.float16 and not prediction.isfinite().all():
        raise ValueError(
            "the U-Net returned NaN or infinity in half precision: load the pipeline in bfloat16 or float32"
        )


def shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
