"""Where the convolutions that settings name are in a U-Net of the original code, whose layout ComfyUI has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

CONVOLUTIONS = {"conv1": "in_layers.2", "conv2": "out_layers.3"}  # of a resnet, in diffusers and in the original


def original_names(unet: Any) -> dict[str, str]:
    """Name of each convolution that can be dilated, in diffusers -> its name in ``unet``.

    They are read from the U-Net's blocks: how many resnets a level has, and where its attention is, makes no
    difference.

    Args:
        unet: a module with the original code's ``input_blocks``, ``middle_block`` and ``output_blocks``.

    Raises:
        ValueError: a model without the U-Net's blocks.
    """
    if not all(isinstance(getattr(unet, name, None), nn.Module) for name in ("input_blocks", "middle_block")):
        raise ValueError(
            f"ScaleCrafter dilates the convolutions of a U-Net (Stable Diffusion 1.x, 2.x, XL), and this model is a "
            f"{type(unet).__name__}"
        )
    return (
        names_of_blocks("down", numbered("input_blocks", unet.input_blocks), "op")
        | names_of_blocks("mid", [("middle_block", unet.middle_block)])
        | names_of_blocks("up", numbered("output_blocks", unet.output_blocks), "conv")
    )


def numbered(name: str, blocks: Iterable[nn.Module]) -> list[tuple[str, Any]]:
    """The blocks of a list and their names."""
    return [(f"{name}.{index}", block) for index, block in enumerate(blocks)]


def names_of_blocks(way: str, blocks: list[tuple[str, Any]], sampler: str = "") -> dict[str, str]:
    """As `original_names`, of one list of blocks, whose levels end with a layer that has a convolution ``sampler``."""
    names: dict[str, str] = {}
    level = resnets = 0
    for block_name, block in blocks:
        for position, layer in enumerate(block):
            place = f"{block_name}.{position}"
            ours = "mid_block" if way == "mid" else f"{way}_blocks.{level}"
            if hasattr(layer, "in_layers"):
                resnet = f"{ours}.resnets.{resnets}"
                names |= {f"{resnet}.{conv}": f"{place}.{theirs}" for conv, theirs in CONVOLUTIONS.items()}
                resnets += 1
            elif isinstance(getattr(layer, sampler, None), nn.Conv2d):
                names[f"{ours}.{way}samplers.0.conv"] = f"{place}.{sampler}"
                level, resnets = level + 1, 0
    return names
