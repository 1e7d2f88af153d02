"""What the method has to know of a diffusers pipeline, and whether it can work on it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

# Cross-attention width and number of levels tell the families apart.
FAMILIES = {(768, 4): "sd15", (1024, 4): "sd21", (2048, 3): "sdxl", (64, 4): "scenes"}


def pixels_per_cell(pipe: Any) -> int:
    """Side in pixels of a cell of the U-Net's input; 1 for a pipeline that has no autoencoder."""
    return getattr(pipe, "vae_scale_factor", 1)


def training_size(pipe: Any) -> tuple[int, int]:
    """(height, width) in pixels that the pipeline's U-Net was trained for; ValueError if its config does not say."""
    cells = pipe.unet.config.sample_size
    if cells is None:
        raise ValueError("the U-Net's config has no sample_size, so its training size is unknown")
    height, width = (cells, cells) if isinstance(cells, int) else cells
    return height * pixels_per_cell(pipe), width * pixels_per_cell(pipe)


def sampling_timesteps(pipe: Any, steps: int) -> list[float]:
    """The timesteps of a whole sampling, in order; the pipeline's scheduler is left as it is."""
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(steps)
    return [float(timestep) for timestep in scheduler.timesteps]


def model_family(unet: Any) -> str | None:
    """sd15, sd21, sdxl or scenes, by the U-Net's shape; None if it is none of them."""
    width = unet.config.cross_attention_dim  # one for each block in some models, which are none of the families
    return FAMILIES.get((width, len(unet.config.block_out_channels))) if isinstance(width, int) else None


def check_unet(pipe: Any) -> None:
    """ValueError if the pipeline has no U-Net that the method can act on."""
    from diffusers import UNet2DConditionModel

    unet = getattr(pipe, "unet", None)
    if unet is None:
        reason = "has a transformer" if getattr(pipe, "transformer", None) is not None else "has no U-Net"
        raise ValueError(
            f"{type(pipe).__name__} {reason}: ScaleCrafter dilates the convolutions of a UNet2DConditionModel "
            "(Stable Diffusion 1.x, 2.x, SDXL)"
        )
    if hasattr(unet, "_orig_mod") or getattr(unet, "_compiled_call_impl", None) is not None:
        raise ValueError(
            "the pipeline's U-Net is compiled, and a compiled graph cannot follow the timestep: "
            "enable the method on the U-Net as it was loaded"
        )
    if not isinstance(unet, UNet2DConditionModel):
        raise ValueError(f"the pipeline's U-Net is a {type(unet).__name__}, not a UNet2DConditionModel")


def check_size(pipe: Any, height: int, width: int) -> None:
    """ValueError if the pipeline's model cannot make this size."""
    multiple = pixels_per_cell(pipe) * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
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


def folder_digest(folder: Path) -> str:
    """sha256 over the relative names and contents of the files that a pipeline or an autoencoder loads."""
    index = folder / "model_index.json"
    total = hashlib.sha256()
    for path in [*sorted(folder.glob("*/*")), index] if index.is_file() else sorted(folder.glob("*")):
        if path.suffix in {".json", ".safetensors", ".txt"}:
            total.update(path.relative_to(folder).as_posix().encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
