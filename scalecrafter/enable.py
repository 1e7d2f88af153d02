"""Switching the method on and off on a user's pipeline.

One pre-forward hook at the U-Net's root reads the timestep of each call and works out the factors of that call; each
dilated convolution consults them in its own ``_conv_forward``. That is the innermost place where the operation can be
replaced: offloading hooks, LoRA layers and anything else around a convolution's ``forward`` keep working. `disable`
puts back what was there, and the pipeline is bit for bit what it was. LoRA weights have to be loaded before `enable`.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from scalecrafter.redilate import redilated_conv2d
from scalecrafter.schedule import dilation_at, reference_step
from scalecrafter.settings import Settings, nearest_names, pixels_per_cell, resolve_settings, training_size

_enabled: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class Handle:
    """The method at work on one U-Net: a context manager, or call `disable`, which may be done more than once."""

    def __init__(self, unet: nn.Module, settings: Settings, train_timesteps: int) -> None:
        self.settings = settings
        self._unet, self._train_timesteps = unet, train_timesteps
        self._factors: dict[str, float] = {}
        # With each convolution, what it had of its own before (another tool's patch), or None.
        self._patched: list[tuple[nn.Conv2d, Any]] = []
        convolutions = find_convolutions(unet, settings.dilation)
        self._root_hook = unet.register_forward_pre_hook(self._read_timestep, with_kwargs=True)
        for name, group in convolutions.items():
            for conv in group:
                self._dilate(name, conv)
        _enabled.add(unet)
        self._active = True

    def _read_timestep(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
        if isinstance(timestep, Tensor):
            timestep = timestep.flatten()[0].item()
        step, settings = reference_step(timestep, self._train_timesteps), self.settings
        factors = {n: dilation_at(d, settings.tau, settings.progressive, step) for n, d in settings.dilation.items()}
        self._factors = {name: d for name, d in factors.items() if d is not None and d != 1}

    def _dilate(self, name: str, conv: nn.Conv2d) -> None:
        plain = conv._conv_forward
        self._patched.append((conv, conv.__dict__.get("_conv_forward")))

        def conv_forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            d = self._factors.get(name)
            if d is None:
                return plain(x, weight, bias)
            return redilated_conv2d(x, weight, bias, dilation=d, stride=conv.stride)  # type: ignore[arg-type]

        conv._conv_forward = conv_forward  # type: ignore[method-assign, assignment]

    def disable(self) -> None:
        """Restore the pipeline."""
        self._root_hook.remove()
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


def find_convolutions(unet: nn.Module, table: Mapping[str, float]) -> dict[str, list[nn.Conv2d]]:
    """The convolutions behind each name of a dilation table; where LoRA wraps one, its base and its first factors.

    Dilating the base and LoRA's own spatial kernel alike is the same as dilating the merged kernel.

    Raises:
        ValueError: a name that is not a convolution of ``unet`` with an odd kernel and "same" padding by zeros, or an
            adapter around it that is not plain LoRA.
    """
    modules = dict(unet.named_modules())
    known = [n.removesuffix(".base_layer") for n, m in modules.items() if is_spatial(m)]
    found: dict[str, list[nn.Conv2d]] = {}
    for name in table:
        module = modules.get(name)
        parts: list[Any] = [module]
        if module is not None and hasattr(module, "base_layer"):
            dora = getattr(module, "lora_variant", None) or any(getattr(module, "use_dora", {}).values())
            if not hasattr(module, "lora_A") or dora:
                raise ValueError(
                    f"{name} has an adapter that is not plain LoRA ({type(module).__name__}, DoRA or the like): "
                    "fuse it (pipe.fuse_lora(), then pipe.unload_lora_weights()) or remove it"
                )
            parts = [module.base_layer, *module.lora_A.values()]
        if not all(is_spatial(part) for part in parts):
            raise ValueError(
                f"the dilation table names {name!r}, which is no 3x3 convolution of this U-Net"
                f"{nearest_names(name, known)}"
            )
        if any(part.padding_mode != "zeros" for part in parts):
            raise ValueError(f"{name} pads with {parts[0].padding_mode!r}: re-dilation pads with zeros only")
        found[name] = parts
    return found


def is_spatial(module: nn.Module | None) -> bool:
    """A convolution with an odd kernel above 1x1 that keeps the size (before its stride)."""
    if not isinstance(module, nn.Conv2d):
        return False
    kernel = module.kernel_size
    return kernel[0] > 1 and all(k % 2 == 1 for k in kernel) and module.padding == tuple(k // 2 for k in kernel)


def check_pipeline(pipe: Any, height: int, width: int) -> None:
    """ValueError if the pipeline has no U-Net, already has the method, or cannot make this size."""
    from diffusers import UNet2DConditionModel

    unet = getattr(pipe, "unet", None)
    if unet is None:
        reason = "has a transformer" if getattr(pipe, "transformer", None) is not None else "has no U-Net"
        raise ValueError(
            f"{type(pipe).__name__} {reason}: ScaleCrafter dilates the convolutions of a UNet2DConditionModel "
            "(Stable Diffusion 1.x, 2.x, SDXL)"
        )
    if not isinstance(unet, UNet2DConditionModel):
        raise ValueError(f"the pipeline's U-Net is a {type(unet).__name__}, not a UNet2DConditionModel")
    if unet in _enabled:
        raise ValueError("the method is already enabled on this pipeline: call disable() on the first handle")
    multiple = pixels_per_cell(pipe) * 2 ** (len(unet.config.block_out_channels) - 1)
    if height % multiple or width % multiple:
        near = tuple(max(multiple, round(side / multiple) * multiple) for side in (height, width))
        raise ValueError(
            f"{height}x{width} (height x width) is not divisible by {multiple}, which this model needs: "
            f"the nearest size is {near[0]}x{near[1]}"
        )
    train_height, train_width = training_size(pipe)
    if height * width < train_height * train_width:
        raise ValueError(
            f"{height}x{width} is below the training size {train_height}x{train_width}: nothing to scale up"
        )


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
            settings do not exist or do not fit. The pipeline is then as it was.
    """
    check_pipeline(pipe, height, width)
    resolved = resolve_settings(settings, pipe, height, width)
    return Handle(pipe.unet, resolved, pipe.scheduler.config.num_train_timesteps)
