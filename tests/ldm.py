"""Save a StableDiffusionPipeline's weights under the original checkpoints' names, as single files have them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ATTENTION = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "group_norm": "norm"}
OUTER = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def replaced(name: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        name = re.sub(rf"(^|\.){re.escape(ours)}(?=\.)", rf"\g<1>{theirs}", name)
    return name


def unet_name(name: str, with_attention: set[str]) -> str:
    """Down blocks have two resnets and up blocks three, each followed by its attention if there is one."""
    if name.startswith("mid_block"):
        place = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
        for part, index in place.items():
            name = name.replace(f"mid_block.{part}", f"middle_block.{index}")
        return name if name.startswith("middle_block.1.") else replaced(name, RESNET)
    block = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name)
    if block is None:
        return replaced(name, OUTER)
    way, level, kind, number, rest = block[1], int(block[2]), block[3], int(block[4]), block[5]
    if kind == "downsamplers":
        return f"input_blocks.{3 * (level + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * level + 2}.{2 if f'up_blocks.{level}' in with_attention else 1}.{rest}"
    index = 3 * level + number
    place = f"input_blocks.{index + 1}" if way == "down" else f"output_blocks.{index}"
    return f"{place}.0.{replaced(rest, RESNET)}" if kind == "resnets" else f"{place}.1.{rest}"


def vae_name(name: str, levels: int) -> str:
    name = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}", name)
    name = re.sub(r"down_blocks\.(\d+)", r"down.\1", name)
    name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    name = name.replace("mid_block.attentions.0", "mid.attn_1").replace(".resnets.", ".block.")
    name = name.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    return replaced(name, ATTENTION) if "attn_1" in name else name


def save_single_file(pipe: Any, path: Path) -> None:
    """Write the single-file checkpoint."""
    with_attention = {".".join(name.split(".")[:2]) for name, _ in pipe.unet.named_modules() if ".attentions." in name}
    state: dict[str, Tensor] = {}
    for name, value in pipe.unet.state_dict().items():
        state[f"model.diffusion_model.{unet_name(name, with_attention)}"] = value
    for name, value in pipe.vae.state_dict().items():
        theirs = vae_name(name, len(pipe.vae.config.block_out_channels))
        one_by_one = "attn_1" in theirs and theirs.endswith("weight") and value.ndim == 2
        state[f"first_stage_model.{theirs}"] = value[..., None, None] if one_by_one else value
    for name, value in pipe.text_encoder.state_dict().items():
        full = name if name.startswith("text_model.") else f"text_model.{name}"
        state[f"cond_stage_model.transformer.{full}"] = value
    save_file({name: value.contiguous() for name, value in state.items()}, path)
