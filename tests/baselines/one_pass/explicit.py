"""A U-Net's call spelled out in double precision, with places where a test changes feature maps, and interpolation,
pooling and convolution from their definitions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from tests.copies import built_once, copier
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline


def scenes_unet(side: int = 8) -> UNet2DConditionModel:
    """The topology of the embedded model: SD's four levels, attention at the third only, twelve latent channels."""
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=12,
        out_channels=12,
        layers_per_block=2,
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()


def shaped(shape: str, folder: Any) -> Any:
    """A pipeline with a tiny U-Net of this shape: sd15, sd21, sdxl or scenes."""
    if shape == "sdxl":
        return tiny_sdxl_pipeline(folder)
    return scenes_pipeline(folder) if shape == "scenes" else tiny_pipeline(folder, shape)


@built_once
def scenes_pipeline(folder: Any) -> Any:
    pipe = tiny_pipeline(folder)
    pipe.unet = scenes_unet()
    pipe.vae = AutoencoderKL.from_config(pipe.vae.config, latent_channels=12).eval()
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    return pipe


SD21 = pytest.param("sd21", marks=pytest.mark.slow)  # sd15 with another width of the text
SHAPES = ("sd15", SD21, "sdxl", "scenes")


def inputs_for(pipe: Any, rows: int, columns: int, batch: int = 2) -> dict[str, Any]:
    """Random arguments of a U-Net call but the timestep."""
    generator, config = torch.Generator().manual_seed(0), pipe.unet.config
    text = torch.randn(batch, 5, config.cross_attention_dim, generator=generator)
    found: dict[str, Any] = {
        "sample": torch.randn(batch, config.in_channels, rows, columns, generator=generator),
        "encoder_hidden_states": text,
    }
    if config.addition_embed_type == "text_time":
        ids = torch.tensor([[4.0 * rows, 4.0 * columns, 0, 0, 4.0 * rows, 4.0 * columns]] * batch)
        found["added_cond_kwargs"] = {"text_embeds": text[:, 0, : text.shape[2] // 2], "time_ids": ids}
    return found


def doubled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: doubled(item) for key, item in value.items()}
    return value.double()


def close(found: Tensor, expected: Tensor, relative: float = 1e-4) -> bool:
    """Whether the largest difference is within this share of the largest value."""
    return float((found.double() - expected).abs().max() / expected.abs().max()) <= relative


@torch.no_grad()
def check_all_differ(pipe: Any, methods: Sequence[Any], size: tuple[int, int], timesteps: Sequence[float]) -> None:
    """Each method has predictions in these calls, at (rows, columns) of the latent, and a description that none of the
    others has.
    """
    inputs, pixels, predictions, described = inputs_for(pipe, *size), [4 * side for side in size], [], []
    for method in methods:
        with method.enable(pipe, height=pixels[0], width=pixels[1]):
            predictions.append(torch.cat([pipe.unet(timestep=t, **inputs).sample for t in timesteps]))
        described.append(method.describe(pipe, *pixels))
    for index, method in enumerate(methods):
        assert not any(torch.equal(predictions[index], other) for other in predictions[:index]), method
        assert described[index] not in described[:index], method


class Explicit:
    """A U-Net's call, layer after layer; subclasses change what a method changes.

    Places are numbered as in the original implementation: input block 0 is the first convolution.
    """

    def __init__(self, unet: Any) -> None:
        self.unet = copier(unet)().double()

    def behind(self, number: int, x: Tensor) -> Tensor:
        """The map that goes on behind an input block, whose skip connection is kept already."""
        return x

    def layer(self, side: str, level: int, index: int, x: Tensor) -> Tensor:
        """The map that a layer returns; in the encoder it is also the skip connection."""
        return x

    def downsampled(self, level: int, conv: Any, x: Tensor) -> Tensor:
        return conv(x)

    def met(self, x: Tensor, skip: Tensor) -> Tensor:
        """The map as it is joined to a skip connection."""
        return x

    def attend(self, block: Any, index: int, x: Tensor, text: Tensor) -> Tensor:
        attentions = getattr(block, "attentions", None)
        if attentions is None:
            return x
        for inner in attentions[index].transformer_blocks:
            inner.attn1.size = tuple(x.shape[-2:])
        return attentions[index](x, encoder_hidden_states=text, return_dict=False)[0]

    @torch.no_grad()
    def __call__(self, timestep: float, **arguments: Any) -> Tensor:
        unet, given = self.unet, doubled(arguments)
        x, text = given["sample"], given["encoder_hidden_states"]
        embedding = unet.time_embedding(unet.get_time_embed(sample=x, timestep=timestep))
        added = unet.get_aug_embed(
            emb=embedding, encoder_hidden_states=text, added_cond_kwargs=given.get("added_cond_kwargs")
        )
        embedding = embedding if added is None else embedding + added
        x = unet.conv_in(x)
        skips, number = [x], 0
        x = self.behind(number, x)
        for level, block in enumerate(unet.down_blocks):
            for index, resnet in enumerate(block.resnets):
                x = self.layer("down", level, index, self.attend(block, index, resnet(x, embedding), text))
                skips.append(x)
                number += 1
                x = self.behind(number, x)
            if block.downsamplers:
                x = self.downsampled(level, block.downsamplers[0].conv, x)
                skips.append(x)
                number += 1
                x = self.behind(number, x)
        x = unet.mid_block.resnets[0](x, embedding)
        x = self.attend(unet.mid_block, 0, x, text)
        x = unet.mid_block.resnets[1](x, embedding)
        for position, block in enumerate(unet.up_blocks):
            level = len(unet.up_blocks) - 1 - position
            for index, resnet in enumerate(block.resnets):
                skip = skips.pop()
                x = resnet(torch.cat([self.met(x, skip), skip], 1), embedding)
                x = self.layer("up", level, index, self.attend(block, index, x, text))
            if block.upsamplers:
                x = block.upsamplers[0].conv(nearest(x, tuple(skips[-1].shape[-2:])))
        return unet.conv_out(torch.nn.functional.silu(unet.conv_norm_out(x)))


def nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Cell j of n reads cell floor(j m / n) of m."""
    rows, columns = (torch.tensor([j * m // n for j in range(n)]) for m, n in zip(x.shape[-2:], size, strict=True))
    return x[..., rows, :][..., columns]


def cubic(distance: float, a: float = -0.75) -> float:
    """Keys' kernel."""
    d = abs(distance)
    if d < 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def cubic_matrix(before: int, after: int) -> Tensor:
    """(after, before) weights of bicubic interpolation along one axis: cells are areas, the border is repeated."""
    weights = torch.zeros(after, before, dtype=torch.float64)
    for j in range(after):
        centre = (j + 0.5) * before / after - 0.5
        for cell in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weights[j, min(max(cell, 0), before - 1)] += cubic(centre - cell)
    return weights


def bicubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    rows, columns = (cubic_matrix(m, n) for m, n in zip(x.shape[-2:], size, strict=True))
    return rows @ x @ columns.T


def pooled(x: Tensor) -> Tensor:
    """Means of 2x2 cells; at an odd side of those that are there."""
    rows, columns = x.shape[-2:]
    lines = [
        torch.stack([x[..., r : r + 2, c : c + 2].mean((-2, -1)) for c in range(0, columns, 2)], -1)
        for r in range(0, rows, 2)
    ]
    return torch.stack(lines, -2)


def convolved(x: Tensor, conv: Any, *, stride: int, spacing: int) -> Tensor:
    """Output j sums, over the taps k of a 3x3 kernel, the input at stride j + spacing (k - 1); zero outside."""
    rows, columns = x.shape[-2:]
    large = torch.zeros(*x.shape[:2], rows + 2 * spacing, columns + 2 * spacing, dtype=x.dtype)
    large[..., spacing : spacing + rows, spacing : spacing + columns] = x
    height, width = -(-rows // stride), -(-columns // stride)
    y = torch.zeros(len(x), conv.out_channels, height, width, dtype=x.dtype) + conv.bias[:, None, None]
    for a in range(3):
        for b in range(3):
            part = large[..., a * spacing :: stride, b * spacing :: stride][..., :height, :width]
            y = y + torch.einsum("oi,nihw->nohw", conv.weight[:, :, a, b], part)
    return y
