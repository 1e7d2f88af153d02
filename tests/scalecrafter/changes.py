"""Changes to small pipelines, and what their calls then need: adapters with random weights, schedulers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverSDEScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)
from peft import LoraConfig


def lora(pipe: Any, targets: list[str], **options: Any) -> None:
    torch.manual_seed(1)
    options = {"r": 2, "lora_alpha": 4, "init_lora_weights": False} | options
    pipe.unet.add_adapter(LoraConfig(target_modules=targets, **options))


def on_attention(pipe: Any) -> None:
    lora(pipe, ["to_q", "to_k", "to_v"])


def on_convolutions(pipe: Any) -> None:
    lora(pipe, ["conv1", "conv2", "conv"])


def fused(pipe: Any) -> None:
    on_convolutions(pipe)
    pipe.unet.fuse_lora()


def image_prompts(count: int) -> Callable[[Any], None]:
    """IP-Adapters with random weights, for image embeddings of 8 numbers."""

    def load(pipe: Any) -> None:
        generator = torch.Generator().manual_seed(2)
        cross = pipe.unet.config.cross_attention_dim
        keys = [m.to_k.weight for name, m in pipe.unet.named_modules() if name.endswith("attn2")]

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        def weights() -> dict[str, dict[str, torch.Tensor]]:
            projection = {"proj.weight": random(4 * cross, 8), "proj.bias": random(4 * cross)}
            projection |= {"norm.weight": random(cross), "norm.bias": random(cross)}
            names = [(i, part) for i in range(len(keys)) for part in ("k", "v")]
            attention = {f"{2 * i + 1}.to_{part}_ip.weight": random(*keys[i].shape) for i, part in names}
            return {"image_proj": projection, "ip_adapter": attention}

        pipe.load_ip_adapter([weights() for _ in range(count)], "", [""] * count, image_encoder_folder=None)

    return load


def embeddings(count: int, images: int = 1) -> list[torch.Tensor]:
    """[without, with] the image prompts, for each adapter."""
    generator = torch.Generator().manual_seed(3)
    return [3 * torch.randn(2, images, 8, generator=generator) for _ in range(count)]


def masks(count: int) -> torch.Tensor:
    """A half of the image for each adapter."""
    halves = torch.zeros(count, 1, 64, 64)
    for index in range(count):
        halves[index, :, :, 32 * index :] = 1
    return halves


def distilled(pipe: Any) -> None:
    """A U-Net that is told the guidance scale instead of being called twice, as distilled ones are."""
    torch.manual_seed(4)
    pipe.unet = UNet2DConditionModel.from_config(pipe.unet.config, time_cond_proj_dim=8).eval()


def schedulers() -> dict[str, Callable[[Any], Any]]:
    """Name -> configuration -> scheduler, for all that Stable Diffusion's pipelines accept, but the one that needs
    torchsde.
    """
    kinds = {*DDIMScheduler().compatibles, DDIMScheduler} - {DPMSolverSDEScheduler, EDMEulerScheduler}
    made: dict[str, Callable[[Any], Any]] = {kind.__name__: kind.from_config for kind in kinds}
    made["PNDMScheduler"] = lambda config: PNDMScheduler.from_config(config, skip_prk_steps=True)
    options = {"sigma_min": 0.03, "sigma_max": 14.6}
    for edm in (EDMEulerScheduler, EDMDPMSolverMultistepScheduler):
        made[edm.__name__] = lambda config, edm=edm: edm(**options)
    continuous = {"timestep_type": "continuous", "prediction_type": "v_prediction"}
    made["continuous Euler"] = lambda config: EulerDiscreteScheduler.from_config(config, **continuous)
    return dict(sorted(made.items()))
