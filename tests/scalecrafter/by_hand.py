"""The method by hand: layers of a U-Net are changed one by one for a call with all arguments, and put back."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from scalecrafter import Settings, disperse_kernel, dispersion_transform, noise_damped
from scalecrafter.patching import replaced_attribute

TRANSFORM = dispersion_transform()  # 3x3 to 5x5, as shipped
Layers = tuple[tuple[str, Any, bool], ...]  # (name, factor, dispersed)


class ByHand(nn.Module):
    """A convolution with its taps ``factor`` apart, by the paper's formulas."""

    def __init__(self, conv: nn.Conv2d, factor: float, dispersed: bool) -> None:
        super().__init__()
        self.conv, self.factor = conv, factor / 2 if dispersed else factor
        self.weight = disperse_kernel(conv.weight, TRANSFORM) if dispersed else conv.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = math.ceil(self.factor)
        padding = whole * (self.weight.shape[-1] // 2)
        size = [round(side * whole / self.factor) for side in x.shape[-2:]]
        large = x if whole == self.factor else F.interpolate(x, size, mode="bilinear")
        y = F.conv2d(large, self.weight, self.conv.bias, self.conv.stride, padding, whole)
        wanted = [-(-side // self.conv.stride[0]) for side in x.shape[-2:]]
        return y if list(y.shape[-2:]) == wanted else F.interpolate(y, wanted, mode="bilinear")


def layers_at(settings: Settings, step: int, base: bool) -> Layers:
    """Changed layers at a step of 50, by the rule of the public code."""
    table, tau = (
        (settings.noise_damped_dilation, settings.noise_damped_tau) if base else (settings.dilation, settings.tau)
    )
    if step >= tau:
        return ()
    return tuple(
        (
            name,
            max(math.ceil(d * (tau - step) / tau), 2) if settings.progressive else d,
            step < settings.dispersed_tau and name in settings.dispersed,
        )
        for name, d in table.items()
    )


class Changing:
    """A U-Net that is called with all arguments, each time with layers that are changed for this call alone.

    With FreeU or LoRA of convolutions, which is merged first, it is a copy. ``plain`` calls the U-Net itself.
    """

    def __init__(self, unet: nn.Module, settings: Settings, plain: Callable[..., Any]) -> None:
        names = {*settings.dilation, *settings.noise_damped_dilation}
        merged = any(hasattr(unet.get_submodule(name), "base_layer") for name in names)
        self.unet, self.call = unet, plain
        if not merged and settings.freeu is None:
            return
        copied: Any = copy.deepcopy(unet, {} if merged else {id(weight): weight for weight in unet.parameters()})
        vars(copied).pop("forward", None)
        copied.set_attn_processor(unet.attn_processors)  # some pipelines read what these have seen
        if merged:
            copied.fuse_lora()
            copied.unload_lora()
        if settings.freeu is not None:
            f = settings.freeu
            copied.enable_freeu(s1=f.s1, s2=f.s2, b1=f.b1, b2=f.b2)
        self.unet, self.call = copied, copied

    @contextmanager
    def changed(self, layers: Layers) -> Iterator[None]:
        """Convolutions have torch's own dilation and padding where factors are whole, and are replaced where not."""
        before = {name: self.unet.get_submodule(name) for name, _, _ in layers}
        for name, factor, dispersed in layers:
            pair = factor if isinstance(factor, tuple) else (factor, factor)
            if dispersed or pair != (int(pair[0]), int(pair[1])):
                self.unet.set_submodule(name, ByHand(before[name], factor, dispersed))
            else:
                before[name].dilation = before[name].padding = (int(pair[0]), int(pair[1]))
        try:
            yield
        finally:
            for name, conv in before.items():
                self.unet.set_submodule(name, conv)
                conv.dilation = conv.padding = (1, 1)

    def __call__(self, layers: Layers, *args: Any, **kwargs: Any) -> Any:
        with self.changed(layers):
            return self.call(*args, **kwargs)


SIGNAL = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
SIGMAS = ((1 - SIGNAL) / SIGNAL).sqrt()  # of Stable Diffusion's training, by timestep


def step_by_noise(scheduler: Any, timestep: Any) -> int:
    """The step of 50 in Stable Diffusion's training at which a sample is as noisy as in this call."""
    t = float(torch.as_tensor(timestep).flatten()[0])
    if type(scheduler).__name__.startswith("EDM") or scheduler.config.get("timestep_type") == "continuous":
        t = int((SIGMAS - math.exp(4 * t)).abs().argmin())
    return min(math.floor(50 * (1000 - t) / 1000), 49)


@contextmanager
def by_hand(pipe: Any, settings: Settings, *, guided: bool = True) -> Iterator[set[Layers]]:
    """While open, each call of the pipeline's U-Net is one with layers changed by hand. Where guidance is damped it is
    two, and their predictions are combined by the paper's formula. Yields the layers that were changed together.
    """
    unet, plain, made, called = pipe.unet, pipe.unet.forward, list[Changing](), set[Layers]()

    def run(layers: Layers, args: Any, kwargs: Any) -> Any:
        if not made:
            made.append(Changing(unet, settings, plain))
        called.add(layers)
        return made[0](layers, *args, **{k: list(v) if isinstance(v, list) else v for k, v in kwargs.items()})

    def forward(*args: Any, **kwargs: Any) -> Any:
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
        step = step_by_noise(pipe.scheduler, timestep)
        output = run(layers_at(settings, step, base=False), args, kwargs)
        if not guided or step >= settings.noise_damped_tau:
            return output
        base = run(layers_at(settings, step, base=True), args, kwargs)[0].chunk(2)[0]
        damped = torch.cat(noise_damped(base, *output[0].chunk(2)))
        return (damped,) if isinstance(output, tuple) else type(output)(sample=damped)

    with replaced_attribute(unet, "forward", forward):
        yield called
