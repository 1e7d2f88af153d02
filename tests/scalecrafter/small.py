"""The smallest pipeline of each kind: U-Nets with two levels, for images of 64x64 pixels, trained at 32x32."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import ControlNetModel, FluxTransformer2DModel, SD3Transformer2DModel, T2IAdapter, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from experiments.scenes.model import build_scheduler
from tests.copies import copier
from tests.scalecrafter.videos import FRAMES, MAKERS
from tests.tiny import tiny_text_config, tiny_tokenizer, tiny_vae

FAMILIES = ("sd", "sd2", "sdxl")
TEXT = 16  # width of each text encoder
# Kind -> what comes after "StableDiffusion" or "StableDiffusionXL" in the name of its class.
KINDS = {
    "text": "Pipeline",
    "img2img": "Img2ImgPipeline",
    "inpaint": "InpaintPipeline",
    "controlnet": "ControlNetPipeline",
    "controlnet img2img": "ControlNetImg2ImgPipeline",
    "controlnet inpaint": "ControlNetInpaintPipeline",
    "adapter": "AdapterPipeline",
    "pag": "PAGPipeline",
    "sag": "SAGPipeline",
    "pix2pix": "InstructPix2PixPipeline",
}


@cache
def tokenizer() -> Any:
    with TemporaryDirectory() as folder:
        return tiny_tokenizer(Path(folder))


def small_unet(family: str, in_channels: int = 4) -> UNet2DConditionModel:
    options: dict[str, Any] = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": TEXT,
        "use_linear_projection": family == "sd2",
    }
    if family == "sdxl":
        options = {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": 2 * TEXT,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + TEXT,
        }
    small = {"sample_size": 8, "layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4}
    return UNet2DConditionModel(in_channels=in_channels, attention_head_dim=2, **small, **options).eval()


def parts_for(kind: str, family: str, unet: UNet2DConditionModel) -> dict[str, Any]:
    """What a pipeline of this kind needs besides."""
    if kind.startswith("controlnet"):
        controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8, 8))
        for layer in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
            torch.nn.init.normal_(layer.weight, std=0.3)
        return {"controlnet": controlnet.eval()}
    if kind == "adapter" and family == "sdxl":
        options = {"channels": [8, 16, 16, 16], "downscale_factor": 8, "adapter_type": "full_adapter_xl"}
        return {"adapter": T2IAdapter(num_res_blocks=1, **options).eval()}
    if kind == "adapter":
        return {"adapter": T2IAdapter(channels=[8, 16], num_res_blocks=1, downscale_factor=4).eval()}
    return {"pag_applied_layers": "mid"} if kind == "pag" else {}


def small_transformer(family: str) -> Any:
    """Stable Diffusion 3, or FLUX in place of SDXL, without the parts that are not looked at."""
    if family == "sdxl":
        model, sizes, cls = FluxTransformer2DModel, {"num_single_layers": 1}, diffusers.FluxPipeline
        sizes |= {"axes_dims_rope": (4, 2, 2)}
    else:
        model, sizes, cls = SD3Transformer2DModel, {"sample_size": 8}, diffusers.StableDiffusion3Pipeline
    dims = {"joint_attention_dim": 8, "pooled_projection_dim": 8, "num_layers": 1}
    transformer = model(num_attention_heads=1, attention_head_dim=8, **dims, **sizes)
    encoders = ["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"]
    encoders += [] if family == "sdxl" else ["text_encoder_3", "tokenizer_3"]
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return cls(transformer=transformer, scheduler=scheduler, vae=None, **dict.fromkeys(encoders))


def small_pipeline(kind: str, family: str) -> Any:
    """A new pipeline, always with the same weights."""
    return maker(kind, family)()


@cache
def maker(kind: str, family: str) -> Callable[[], Any]:
    return copier(built(kind, family))


def built(kind: str, family: str) -> Any:
    torch.manual_seed(0)
    if kind in MAKERS:
        with TemporaryDirectory() as folder:
            pipe = MAKERS[kind](Path(folder))
        pipe.set_progress_bar_config(disable=True)
        return pipe
    if kind == "transformer":
        return small_transformer(family)
    unet = small_unet(family, in_channels=8 if kind == "pix2pix" else 4)
    config = tiny_text_config(tokenizer(), TEXT)
    models = {"vae": tiny_vae().eval(), "unet": unet, "scheduler": build_scheduler()}
    models |= {"text_encoder": CLIPTextModel(config).eval(), "tokenizer": tokenizer()}
    if family == "sdxl":
        second = CLIPTextModelWithProjection(config).eval()
        models |= {"text_encoder_2": second, "tokenizer_2": tokenizer()}
    else:
        models |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    models["scheduler"].register_to_config(prediction_type="v_prediction" if family == "sd2" else "epsilon")
    cls = getattr(diffusers, f"StableDiffusion{'XL' if family == 'sdxl' else ''}{KINDS[kind]}")
    pipe = cls(**models, **parts_for(kind, family, unet))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pictures(height: int = 64, width: int = 64) -> tuple[Image.Image, Image.Image]:
    """An image and a mask of its lower half."""
    image = np.linspace(0, 255, height * width * 3).reshape(height, width, 3).astype(np.uint8)
    mask = np.repeat([[0], [255]], height // 2, axis=0).repeat(width, axis=1).astype(np.uint8)
    return Image.fromarray(image), Image.fromarray(mask)


def inputs_of(kind: str, family: str) -> dict[str, Any]:
    """Arguments of a call for one image of 64x64 pixels, or a video."""
    image, mask = pictures()
    size = {"height": 64, "width": 64}
    if kind in MAKERS:
        prompt = {"image": image, "decode_chunk_size": FRAMES} if kind == "stable_video" else {"prompt": "a b"}
        return {**prompt, **size, "num_frames": FRAMES, "num_inference_steps": 1}
    inputs = {
        "img2img": {"image": image, "strength": 1.0},
        "inpaint": {"image": image, "mask_image": mask, "strength": 1.0, **size},
        "controlnet": {"image": image, **size},
        "controlnet img2img": {"image": image, "control_image": mask.convert("RGB"), "strength": 1.0, **size},
        "controlnet inpaint": {"image": image, "mask_image": mask, "control_image": image, "strength": 1.0, **size},
        "adapter": {"image": image, **size},
        "pix2pix": {"image": image, **size} if family == "sdxl" else {"image": image},
    }
    return {"prompt": "a b", **inputs.get(kind, size)}


def draw(pipe: Any, kind: str, family: str, **options: Any) -> np.ndarray:
    """Images (N, H, W, C), or videos (N, F, H, W, C), with values in [0, 1]; the same for the same arguments."""
    torch.manual_seed(0)  # some schedulers use the global generator
    defaults = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0), "output_type": "np"}
    if kind != "stable_video":
        defaults["guidance_scale"] = 5.0
    output = pipe(**{**defaults, **inputs_of(kind, family), **options})
    return np.asarray(output.frames if kind in MAKERS else output.images, dtype=np.float64)
