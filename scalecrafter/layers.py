"""The layers of a U-Net that follow the state of its calls: dilated and dispersed convolutions, and FreeU's resnets.

A convolution looks its factor up in its own ``_conv_forward``. This is the innermost place where the operation can be
replaced, so offloading hooks, LoRA layers and other wrappers of a convolution's ``forward`` keep working.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from scalecrafter.convolutions import find_convolutions
from scalecrafter.disperse import dispersed, transform_for
from scalecrafter.freeu import Amplification, amplified, freeu_plan
from scalecrafter.patching import no_hook, replaced_attribute
from scalecrafter.redilate import redilated_conv2d
from scalecrafter.settings import Settings
from scalecrafter.state import convolution_at, current, resnet_at


class FollowingConvolution:
    """The ``_conv_forward`` of one convolution; a deep copy of the convolution has its class's own.

    ``plain`` is what it does in states that leave it as it is, if not the present one.
    """

    def __init__(self, name: str, conv: nn.Conv2d, plain: Callable[..., Any] | None = None) -> None:
        self.name, self.conv, self.stride = name, conv, conv.stride
        self.plain = conv._conv_forward if plain is None else plain

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        key = current.get()
        found = convolution_at(key, self.name) if key else None
        if found is None:
            return self.plain(x, weight, bias)
        factor, kernel = found
        if kernel is not None:
            weight, factor = dispersed(weight, factor, *kernel)
        return redilated_conv2d(x, weight, bias, dilation=factor, stride=self.stride)  # type: ignore[arg-type]

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        forward: Callable[..., Any] = type(self.conv)._conv_forward.__get__(memo[id(self.conv)])
        return forward


class FollowingResnet:
    """A pre-forward hook of one resnet, which deep copies do not have."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, resnet: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        key = current.get()
        found = resnet_at(key, self.name) if key else None
        return None if found is None else (amplified(args[0], *found), *args[1:])

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        return no_hook


class Layers:
    """All layers of a U-Net that follow its calls; closing the context undoes the changes in reverse order."""

    def __init__(self, unet: nn.Module) -> None:
        self._unet = unet
        self._changes, self._lock = ExitStack(), threading.Lock()
        self._reached: set[nn.Module] = set()

    def reach(self, settings: Settings) -> Mapping[str, Amplification]:
        """Let every layer that ``settings`` change follow the calls, those of adapters loaded meanwhile too; returns
        FreeU's part. A layer that nothing changes in a call works as before, so that an error between two layers does
        no harm. ValueError if the settings do not fit the U-Net.
        """
        with self._lock:
            named = find_convolutions(self._unet, {**settings.dilation, **settings.noise_damped_dilation})
            for name, group in named.items():
                for conv in filter(self._is_new, group):
                    if name in settings.dispersed:  # found now, before a plan's tensors without content
                        transform_for(conv.weight, settings.dispersed_size, settings.dispersion_eta)
                    following = FollowingConvolution(name, conv)
                    self._changes.enter_context(replaced_attribute(conv, "_conv_forward", following))
                    self._reached.add(conv)
            freeu = {} if settings.freeu is None else freeu_plan(self._unet, settings.freeu)
            for name in freeu:
                resnet = self._unet.get_submodule(name)
                if self._is_new(resnet):
                    hook = resnet.register_forward_pre_hook(FollowingResnet(name))
                    self._changes.callback(hook.remove)
                    self._reached.add(resnet)
        return freeu

    def _is_new(self, layer: nn.Module) -> bool:
        return layer not in self._reached

    def __enter__(self) -> Layers:
        return self

    def __exit__(self, *error: Any) -> None:
        self._changes.close()
