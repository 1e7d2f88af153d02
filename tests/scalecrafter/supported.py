"""What works and what is refused, as cases that `test_supported` draws and rows of the table in docs/pipelines.md.

``python -m tests.scalecrafter.supported`` writes the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import cpu_offload
from diffusers import FlowMatchEulerDiscreteScheduler, LCMScheduler
from peft import LoHaConfig

from scalecrafter import Settings
from tests.scalecrafter.cases import EARLY, EVERYTHING, PLAIN, Case, Row, cases, with_every_scheduler
from tests.scalecrafter.changes import (
    distilled,
    embeddings,
    fused,
    image_prompts,
    lora,
    masks,
    on_attention,
    on_convolutions,
)
from tests.scalecrafter.videos import NAMES, SPATIO_TEMPORAL

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/pipelines.md"
START = "<!-- From the cases in tests/scalecrafter/supported.py: python -m tests.scalecrafter.supported -->"
END = "<!-- End of the table -->"
COLUMNS = {"SD 1.x / 2.x": ("sd", "sd2"), "SDXL": ("sdxl",)}

VIDEO = Settings(dict.fromkeys(NAMES, 2), tau=50, noise_damped_tau=50)
STABLE_VIDEO = Settings(dict.fromkeys(SPATIO_TEMPORAL, 2), tau=50, noise_damped_tau=50)


def wrapped(pipe: Any) -> None:
    pipe.unet = torch.compile(pipe.unet, backend="eager")


UNGUIDED, STILL = {"guidance_scale": 1.0}, {"settings": PLAIN}
LISTS = {"prompt": ["a b", "c"], "negative_prompt": ["d", "e f"], "num_images_per_prompt": 2}
SIZES = {"original_size": (96, 32), "crops_coords_top_left": (8, 4), "target_size": (64, 48)}
SIZES |= {f"negative_{name}": (16, 24) for name in ("original_size", "crops_coords_top_left", "target_size")}
TWO_MASKS = {"ip_adapter_image_embeds": embeddings(2), "cross_attention_kwargs": {"ip_adapter_masks": masks(2)}}
ONLY_SD, ONLY_SDXL = {"families": ("sd",)}, {"families": ("sdxl",)}

ROWS = (
    Row(
        "text-to-image, img2img, inpaint",
        (
            Case("text", families=("sd", "sd2", "sdxl")),
            Case("everything", settings=EVERYTHING, families=("sd", "sd2", "sdxl")),
            *cases("img2img", "inpaint"),
        ),
        "every part of the method: whole and fractional factors, other ones for each direction, dispersion, noise "
        "damping, FreeU",
    ),
    Row(
        "ControlNet, also with img2img and inpaint, or guess mode",
        (
            *cases("controlnet", "controlnet img2img", "controlnet inpaint"),
            Case("guess mode", "controlnet", call={"guess_mode": True}),
        ),
        "the U-Net is dilated, the ControlNet is not (as in the public code)",
    ),
    Row("T2I-Adapter", cases("adapter")),
    Row(
        "IP-Adapter: one or several, several images, masks",
        (
            Case("one", change=image_prompts(1), call={"ip_adapter_image_embeds": embeddings(1)}),
            Case("images", change=image_prompts(1), call={"ip_adapter_image_embeds": embeddings(1, images=2)}),
            Case("masks", change=image_prompts(2), call=TWO_MASKS),
        ),
    ),
    Row(
        "negative prompts, lists of prompts, several images per prompt",
        (Case("negative prompt", call={"negative_prompt": "c d"}), Case("lists", call=LISTS)),
    ),
    Row("sizes and crops as conditions", (Case("sizes", call=SIZES, **ONLY_SDXL),)),
    Row(
        "every scheduler that the pipeline accepts; EDM's and continuous timesteps",
        with_every_scheduler(),
        "windows follow the noise level: nothing needs retuning; not tested: DPMSolverSDEScheduler (needs torchsde)",
    ),
    Row(
        "flow-matching schedulers",
        (Case("flow", scheduler=lambda config: FlowMatchEulerDiscreteScheduler(), error="FlowMatchEuler"),),
        "their noise levels are not those of Stable Diffusion's training",
    ),
    Row(
        "any number of steps and eta",
        (
            Case("one step", call={"num_inference_steps": 1}),
            Case("eta", settings=EARLY, call={"num_inference_steps": 5, "eta": 1.0}),
        ),
    ),
    Row(
        "img2img strength below 1",
        (
            Case("window", "img2img", EARLY, {"strength": 0.8, "num_inference_steps": 5}),
            Case("below it", "img2img", EARLY, {"strength": 0.3, "num_inference_steps": 5}, acts=False),
        ),
        "sampling enters the windows at its timesteps",
    ),
    Row(
        "video: AnimateDiff, ModelScope and Zeroscope, Stable Video Diffusion",
        (
            *cases("animatediff", "modelscope", settings=VIDEO, **ONLY_SD),
            *cases("stable_video", settings=STABLE_VIDEO, **ONLY_SD),
        ),
        "spatial convolutions are dilated, temporal ones never; motion models take the settings of their image model, "
        "Stable Video Diffusion needs its own",
    ),
    Row(
        "LoRA on attention or convolutions, fused or not, loaded before or after `enable`",
        (
            Case("attention, scaled", change=on_attention, call={"cross_attention_kwargs": {"scale": 0.3}}),
            Case("convolutions", change=on_convolutions),
            Case("loaded later", change=on_convolutions, enabled_first=True),
            Case("fused later", change=fused, enabled_first=True),
        ),
        "what changes while the method is enabled is followed in the next call",
    ),
    Row(
        "other adapters on convolutions (DoRA, LoHa, ...)",
        (
            Case("DoRA", change=lambda pipe: lora(pipe, ["conv1"], use_dora=True), error="not plain LoRA"),
            Case(
                "LoHa", change=lambda pipe: pipe.unet.add_adapter(LoHaConfig(target_modules=["conv1"])), error="LoRA"
            ),
            Case(
                "DoRA later",
                change=lambda pipe: lora(pipe, ["conv1"], use_dora=True),
                enabled_first=True,
                error="not plain LoRA",
            ),
        ),
        "fuse the adapter first",
    ),
    Row(
        "guidance off (scale 1, distilled models)",
        (
            Case("scale 1", call=UNGUIDED, guided=False),
            Case("list", call={**UNGUIDED, "prompt": ["a", "b"]}, guided=False),
            Case("LCM", scheduler=LCMScheduler.from_config, call=UNGUIDED, guided=False),
            Case("distilled", change=distilled, call={"prompt": ["a", "b"]}, guided=False),
            Case("unguided", "modelscope", VIDEO, {**UNGUIDED, "prompt": ["a", "b"]}, guided=False, **ONLY_SD),
            Case("unguided", "stable_video", STABLE_VIDEO, {"max_guidance_scale": 1.0}, guided=False, **ONLY_SD),
        ),
        "noise damping is off, with one warning",
    ),
    Row("`guidance_rescale` above 0", (Case("rescale", call={"guidance_rescale": 0.7}, **STILL),)),
    Row(
        "`guidance_rescale` above 0 with noise damping",
        (Case("rescale damped", call={"guidance_rescale": 0.7}, error="guidance_rescale=0"),),
    ),
    Row(
        "other guidance: PAG, InstructPix2Pix, SAG (SD only)",
        (*cases("pag", "pix2pix", **STILL), *cases("sag", **STILL, **ONLY_SD)),
    ),
    Row(
        "other guidance with noise damping",
        (*cases("pag", "pix2pix", error="noise_damped_tau to 0"), *cases("sag", error="noise_damped_tau", **ONLY_SD)),
        "so in modular pipelines",
    ),
    Row(
        "offloading with accelerate's hooks",
        (Case("offload", harmless=lambda pipe: cpu_offload(pipe.unet, torch.device("cpu"))),),
        "dispersed kernels are made in each call, on the weight's device",
    ),
    Row(
        "attention slicing, VAE tiling, channels_last",
        (
            Case("slicing", harmless=lambda pipe: pipe.enable_attention_slicing()),
            Case("tiling", change=lambda pipe: pipe.vae.enable_tiling()),
            Case("channels_last", harmless=lambda pipe: pipe.unet.to(memory_format=torch.channels_last)),
        ),
    ),
    Row(
        "float16, bfloat16",
        (
            Case("float16", change=lambda pipe: pipe.to(dtype=torch.float16), **STILL),
            Case("bfloat16", change=lambda pipe: pipe.to(dtype=torch.bfloat16), **STILL),
        ),
        "a float16 overflow raises instead of returning a black image",
    ),
    Row(
        "`torch.compile`: the U-Net in place or wrapped, or its repeated blocks",
        (
            Case("compiled in place", harmless=lambda pipe: pipe.unet.compile(backend="eager")),
            Case("compiled and wrapped", harmless=wrapped),
            Case("compiled blocks", harmless=lambda pipe: pipe.unet.compile_repeated_blocks(backend="eager")),
        ),
        "one graph for each state of the layers: sampling.md",
    ),
    Row(
        "a transformer pipeline (SD 3, FLUX)",
        cases("transformer", error="has a transformer"),
        "it has no convolutions to dilate",
    ),
)


def table() -> str:
    """The table in Markdown."""
    lines = [f"| what | {' | '.join(COLUMNS)} | notes |", f"|---|{'---|' * len(COLUMNS)}---|"]
    for row in ROWS:
        cells = [row.what, *map(row.cell, COLUMNS.values()), row.notes]
        lines.append("|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """The document with the table between its two marks."""
    before, rest = text.split(START)
    return f"{before}{START}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
