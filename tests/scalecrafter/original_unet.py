"""The U-Net of Stable Diffusion's original code, which ComfyUI has: the same layers as diffusers', in its layout and
under its names. Attention is diffusers' own, whose parameters have the original names.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from diffusers.models import Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F


class ResBlock(nn.Module):
    def __init__(self, channels: int, embedded: int, out: int, groups: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, out, 3, padding=1)
        self.in_layers = nn.Sequential(nn.GroupNorm(groups, channels), nn.SiLU(), conv)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedded, out))
        conv = nn.Conv2d(out, out, 3, padding=1)
        self.out_layers = nn.Sequential(nn.GroupNorm(groups, out), nn.SiLU(), nn.Dropout(0), conv)
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(emb)[..., None, None]
        added: Tensor = self.skip_connection(x) + self.out_layers(h)
        return added


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.op(x)
        return y


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return y


class OriginalUNet(nn.Module):
    """Of the configuration of a UNet2DConditionModel with one transformer layer in each attention."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        widths, layers = config.block_out_channels, config.layers_per_block
        attention = ["CrossAttn" in kind for kind in config.down_block_types]
        embedded = 4 * widths[0]
        self.time_embed = nn.Sequential(nn.Linear(widths[0], embedded), nn.SiLU(), nn.Linear(embedded, embedded))
        if config.addition_embed_type == "text_time":
            first = nn.Linear(config.projection_class_embeddings_input_dim, embedded)
            self.label_emb = nn.Sequential(nn.Sequential(first, nn.SiLU(), nn.Linear(embedded, embedded)))

        def resnet(channels: int, out: int) -> ResBlock:
            return ResBlock(channels, embedded, out, config.norm_num_groups)

        blocks = [[nn.Conv2d(config.in_channels, widths[0], 3, padding=1)]]
        skips = [width := widths[0]]
        for level, out in enumerate(widths):
            for _ in range(layers):
                blocks.append([resnet(width, out), *self.attention(out, attention[level])])
                skips.append(width := out)
            if level < len(widths) - 1:
                blocks.append([Downsample(width)])
                skips.append(width)
        self.input_blocks = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        self.middle_block = nn.ModuleList([resnet(width, width), *self.attention(width, True), resnet(width, width)])
        blocks = []
        for level, out in reversed(list(enumerate(widths))):
            for number in range(layers + 1):
                blocks.append([resnet(width + skips.pop(), out), *self.attention(out, attention[level])])
                width = out
                if level and number == layers:
                    blocks[-1].append(Upsample(width))
        self.output_blocks = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        conv = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)
        self.out = nn.Sequential(nn.GroupNorm(config.norm_num_groups, widths[0]), nn.SiLU(), conv)

    def attention(self, width: int, there: bool) -> list[nn.Module]:
        heads, groups = self.config.attention_head_dim, self.config.norm_num_groups
        options = {"cross_attention_dim": self.config.cross_attention_dim, "norm_num_groups": groups}
        return [Transformer2DModel(heads, width // heads, width, **options)] if there else []

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None = None, **options: Any
    ) -> Tensor:
        half = self.config.block_out_channels[0] // 2
        angles = timesteps[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)
        emb = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=1))
        emb = emb if y is None else emb + self.label_emb(y)

        def through(block: Any, h: Tensor) -> Tensor:
            for layer in block:
                if isinstance(layer, ResBlock):
                    h = layer(h, emb)
                elif isinstance(layer, Transformer2DModel):
                    h = layer(h, encoder_hidden_states=context).sample
                else:
                    h = layer(h)
            return h

        skips = []
        for block in self.input_blocks:
            skips.append(x := through(block, x))
        x = through(self.middle_block, x)
        for block in self.output_blocks:
            x = through(block, torch.cat([x, skips.pop()], dim=1))
        predicted: Tensor = self.out(x)
        return predicted


def original_unet(unet: Any) -> OriginalUNet:
    """A new U-Net in the original layout; diffusers' own conversion copies its weights into ``unet``."""
    torch.manual_seed(5)
    original = OriginalUNet(unet.config).eval()
    checkpoint = {f"model.diffusion_model.{name}": value for name, value in original.state_dict().items()}
    unet.load_state_dict(convert_ldm_unet_checkpoint(checkpoint, unet.config), strict=True)
    return original
