"""Tiny diffusers pipelines with the topology of Stable Diffusion and random weights, and helpers that run them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from numpy.typing import NDArray
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from baselines.method import Method, Request, Sampler
from experiments.results.artefacts import write_images, write_table
from experiments.results.reading import run_rows
from experiments.results.score_table import collect
from experiments.scenes.model import build_scheduler
from experiments.scoring.runs import complete_run
from experiments.setup.grid import read_grid
from tests.copies import built_once

MAX_TOKENS = 12
# Width of the text embedding, by which "auto" recognises a family; "tiny" is no family, and the fastest.
TEXT_WIDTH = {"tiny": 16, "sd15": 768, "sd21": 1024, "sdxl": 2048}


def tiny_tokenizer(folder: Path) -> CLIPTokenizer:
    """A tokenizer of single letters, which need no merges."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_TOKENS)


def tiny_unet(text_width: int = 16, in_channels: int = 4, attention: Collection[int] = (2,)) -> UNet2DConditionModel:
    """SD 1.5's U-Net with 8 to 16 channels, and attention at these levels only; SD has it at 0, 1 and 2."""
    kinds = ["CrossAttn" * (level in attention) for level in range(4)]
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        layers_per_block=2,
        block_out_channels=(8, 16, 16, 16),
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        cross_attention_dim=text_width,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def tiny_sdxl_unet() -> UNet2DConditionModel:
    """SDXL's topology: three levels, attention at the two deeper ones, conditioned on size and pooled text too."""
    return UNet2DConditionModel(
        sample_size=8,
        layers_per_block=2,
        block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH["sdxl"],
        attention_head_dim=2,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + TEXT_WIDTH["sdxl"] // 2,
    )


def tiny_text_config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=16,
        projection_dim=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def tiny_vae() -> AutoencoderKL:
    """An autoencoder with factor 4 and four latent channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    )


def tiny_scheduler() -> DDIMScheduler:
    """The scenes model's, with the epsilon prediction of Stable Diffusion."""
    return DDIMScheduler.from_config(build_scheduler().config, prediction_type="epsilon")  # type: ignore[no-any-return]


@built_once
def tiny_pipeline(folder: Path, family: str = "tiny") -> StableDiffusionPipeline:
    """A StableDiffusionPipeline whose training size is 32x32 pixels (latents 8x8, autoencoder factor 4).

    Args:
        folder: where the tokenizer's files may be written.
        family: "tiny", with the least attention, or "sd15" or "sd21", for which "auto" finds that family's settings.
    """
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(folder)
    return StableDiffusionPipeline(
        vae=tiny_vae().eval(),
        text_encoder=CLIPTextModel(tiny_text_config(tokenizer, TEXT_WIDTH[family])).eval(),
        tokenizer=tokenizer,
        unet=tiny_unet(TEXT_WIDTH[family], attention=(2,) if family == "tiny" else (0, 1, 2)).eval(),
        scheduler=tiny_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@built_once
def tiny_sdxl_pipeline(folder: Path) -> StableDiffusionXLPipeline:
    """A StableDiffusionXLPipeline whose training size is 32x32 pixels; each text encoder gives half the width."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(folder)
    text = tiny_text_config(tokenizer, TEXT_WIDTH["sdxl"] // 2)
    return StableDiffusionXLPipeline(
        vae=tiny_vae().eval(),
        text_encoder=CLIPTextModel(text).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=tiny_sdxl_unet().eval(),
        scheduler=tiny_scheduler(),
        add_watermarker=False,
    )


def tiny_upscaler(folder: Path) -> StableDiffusionUpscalePipeline:
    """An upscaling pipeline, conditioned on a small image and a noise level; tokenizer files go into ``folder``."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(folder)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=7,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
        num_class_embeds=1000,
    )
    return StableDiffusionUpscalePipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(tiny_text_config(tokenizer, 16)),
        tokenizer=tokenizer,
        unet=unet,
        low_res_scheduler=DDPMScheduler(),
        scheduler=tiny_scheduler(),
        max_noise_level=350,
    )


PIPELINES = {"sd": tiny_pipeline, "sdxl": tiny_sdxl_pipeline}


def unet_inputs(pipe: Any, batch: int = 2, seed: int = 0) -> dict[str, Any]:
    """Random inputs of the pipeline's U-Net for an image of 64x64 pixels, without the timestep."""
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randn(batch, 4, 16, 16, generator=generator)
    text = torch.randn(batch, 5, pipe.unet.config.cross_attention_dim, generator=generator)
    inputs: dict[str, Any] = {"sample": sample, "encoder_hidden_states": text}
    if pipe.unet.config.addition_embed_type == "text_time":
        pooled = text[:, 0, : text.shape[2] // 2]
        inputs["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": torch.full((batch, 6), 64.0)}
    return inputs


@torch.no_grad()
def predict(pipe: Any, timestep: Any = 500, batch: int = 2) -> torch.Tensor:
    """The U-Net's prediction (batch, 4, 16, 16) for `unet_inputs`."""
    prediction: torch.Tensor = pipe.unet(timestep=timestep, **unet_inputs(pipe, batch)).sample
    return prediction


def generate(
    method: Method,
    pipe: Any,
    seeds: Sequence[int] = (1, 2),
    size: tuple[int, int] = (64, 64),
    *,
    steps: int = 3,
    guidance_scale: float = 4.0,
    eta: float = 0.0,
) -> NDArray[np.uint8]:
    """One image per seed, whose prompt contains the seed too."""
    sampler = Sampler(steps, guidance_scale, eta)
    return method.generate(pipe, Request([f"prompt {seed}" for seed in seeds], seeds, *size, sampler))


def tiny_overrides(pipeline: Path, folder: Path) -> list[str]:
    """Overrides that sample with a tiny pipeline into ``folder``: four prompts, two steps, settings that fit it."""
    return [
        "model=folder",
        f"model.path={pipeline}",
        "model.distance={_target_: experiments.scenes.scene_features.SceneDistance}",
        "model.window_stride=8",
        "prompts.limit=4",
        "sampler.steps=2",
        "model.steps=2",
        "scalecrafter.settings=sd15_x4",
        "metrics.reference_count=6",
        "metrics.reference_minimum=2",
        f"paths.runs={folder / 'runs'}",
        f"paths.results={folder / 'results'}",
    ]


def finish_experiments(pipeline: Path, folder: Path) -> Path:
    """Run table1 and ablate_tau at their smallest on a tiny pipeline, into ``folder``/runs and ``folder``/results."""
    for options in (
        ["experiment=table1", "resolution=x4,x16", "method=direct,upscale,scalecrafter"],
        ["experiment=ablate_tau", "resolution=x4", "scalecrafter.tau=0,50"],
    ):
        grid = read_grid([*options, *tiny_overrides(pipeline, folder)])
        rows = run_rows(grid)
        for row in rows:
            complete_run(row.run)
        table = collect(rows)
        write_table(table, grid.results, grid.name)
        write_images(grid.name, table, grid.plot, grid.runs, grid.results)
    return folder
