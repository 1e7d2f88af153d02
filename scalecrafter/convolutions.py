"""Find the convolutions that a dilation table names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn


def find_convolutions(
    unet: nn.Module, names: Iterable[str], places: Mapping[str, str] | None = None
) -> dict[str, list[nn.Conv2d]]:
    """Resolve each table entry to its Conv2d modules: one, or the base and the first factors where LoRA wraps it.

    Dilating both the base and LoRA's own spatial kernel equals dilating the merged kernel.

    Args:
        places: name of every convolution in settings -> in ``unet``, where they differ.

    Raises:
        ValueError: a name is not a convolution of ``unet`` with an odd kernel and zero "same" padding, or is wrapped
            in an adapter other than plain LoRA.
    """
    found: dict[str, list[nn.Conv2d]] = {}
    for name in names:
        module: Any = module_at(unet, places.get(name, name) if places else name)
        parts = [module]
        if module is not None and hasattr(module, "base_layer"):
            dora = getattr(module, "lora_variant", None) or any(getattr(module, "use_dora", {}).values())
            if not hasattr(module, "lora_A") or dora:
                raise ValueError(
                    f"{name} has an adapter that is not plain LoRA ({type(module).__name__}, for example DoRA): "
                    "fuse it (pipe.fuse_lora(), then pipe.unload_lora_weights()) or remove it"
                )
            parts = [module.base_layer, *module.lora_A.values()]
        if not all(is_spatial(part) for part in parts):
            own = (n.removesuffix(".base_layer") for n, m in unet.named_modules() if is_spatial(m))
            known = list(places or own)
            raise ValueError(
                f"the settings name {name!r}, which is not a 3x3 convolution of this U-Net{nearest_names(name, known)}"
            )
        if any(part.padding_mode != "zeros" for part in parts):
            raise ValueError(f"{name} pads with {parts[0].padding_mode!r}, but re-dilation supports zero padding only")
        found[name] = parts
    return found


def module_at(unet: nn.Module, name: str) -> nn.Module | None:
    """The module of this name, or None; a look-up, where listing all modules takes milliseconds of every call."""
    try:
        return unet.get_submodule(name)
    except AttributeError:
        return None


def is_spatial(module: nn.Module | None) -> bool:
    """Whether this is a convolution with an odd kernel above 1x1 and "same" padding."""
    if not isinstance(module, nn.Conv2d):
        return False
    kernel = module.kernel_size
    return kernel[0] > 1 and all(k % 2 == 1 for k in kernel) and module.padding == tuple(k // 2 for k in kernel)


def nearest_names(name: str, known: list[str]) -> str:
    """`` (did you mean ...?)``, or an empty string without close matches."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f" (did you mean {', '.join(near)}?)" if near else ""
