"""Sizes and family of a diffusers pipeline, and checks that the method can work on it."""

from __future__ import annotations

from typing import Any

# (cross-attention width, number of levels) identifies a family.
FAMILIES = {(768, 4): "sd15", (1024, 4): "sd21", (2048, 3): "sdxl"}


def uncompiled(unet: Any) -> Any:
    """A U-Net without the wrapper that `torch.compile` puts around it."""
    return getattr(unet, "_orig_mod", unet)


def vae_scale_factor(pipe: Any) -> int:
    """Image pixels per latent pixel along each side; 1 for a pipeline without autoencoder."""
    return getattr(pipe, "vae_scale_factor", 1)


def latent_size(pipe: Any, size: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of the latent of an image of this (height, width) in pixels."""
    factor = vae_scale_factor(pipe)
    return size[0] // factor, size[1] // factor


def training_size(pipe: Any) -> tuple[int, int]:
    """(height, width) in pixels that the U-Net was trained at; ValueError if its config has no sample_size."""
    sides = pipe.unet.config.sample_size
    if sides is None:
        raise ValueError("the U-Net's config has no sample_size, so its training size is unknown")
    height, width = (sides, sides) if isinstance(sides, int) else sides
    return height * vae_scale_factor(pipe), width * vae_scale_factor(pipe)


def size_multiple(pipe: Any) -> int:
    """Pixels that an image's sides must be divisible by, so that every level of the U-Net has a whole size."""
    return vae_scale_factor(pipe) * int(2 ** (len(pipe.unet.config.block_out_channels) - 1))


def dtype_argument() -> str:
    """What diffusers' ``from_pretrained`` calls the precision of the weights; renamed in 0.42."""
    import diffusers

    return "dtype" if diffusers.__version__ >= "0.42" else "torch_dtype"


def sampling_timesteps(pipe: Any, steps: int) -> list[float]:
    """All timesteps of a sampling run, in order; the pipeline's own scheduler is left unchanged."""
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(steps)
    return [float(timestep) for timestep in scheduler.timesteps]


def model_family(unet: Any) -> str | None:
    """sd15, sd21 or sdxl by the U-Net's shape, or None if it is another model."""
    width = unet.config.cross_attention_dim  # a list, one per block, in some models of other families
    return FAMILIES.get((width, len(unet.config.block_out_channels))) if isinstance(width, int) else None


def is_sdxl(model: Any) -> bool:
    """Whether a U-Net, or that of a pipeline, is conditioned on pooled text and sizes, as SDXL's is."""
    return bool(getattr(model, "unet", model).config.addition_embed_type == "text_time")


UNETS = (
    "UNet2DConditionModel",
    *("UNetMotionModel", "UNet3DConditionModel", "UNetSpatioTemporalConditionModel"),  # video: frames are images
)


def check_unet(pipe: Any) -> None:
    """ValueError if the pipeline's U-Net is none of `UNETS`."""
    import diffusers

    unet = getattr(pipe, "unet", None)
    if unet is None:
        reason = "has a transformer" if getattr(pipe, "transformer", None) is not None else "has no U-Net"
        raise ValueError(
            f"{type(pipe).__name__} {reason}: ScaleCrafter dilates the convolutions of a U-Net "
            "(Stable Diffusion 1.x, 2.x, SDXL, AnimateDiff, ModelScope, Stable Video Diffusion)"
        )
    kind = type(uncompiled(unet))
    if not issubclass(kind, tuple(getattr(diffusers, name) for name in UNETS)):
        raise ValueError(f"the pipeline's U-Net is a {kind.__name__}, not one of {', '.join(UNETS)}")


def check_sides(pipe: Any, height: int, width: int) -> None:
    """ValueError if a side is not a positive multiple of the latent's pixels (8 for Stable Diffusion)."""
    multiple = vae_scale_factor(pipe)
    if height % multiple or width % multiple or min(height, width) < multiple:
        near = tuple(max(multiple, round(side / multiple) * multiple) for side in (height, width))
        raise ValueError(
            f"{height}x{width} (height x width) is not divisible by {multiple}, which this model needs: "
            f"the nearest size is {near[0]}x{near[1]}"
        )


def is_above_training(pipe: Any, height: int, width: int) -> bool:
    """Whether the area is larger than the training area."""
    train_height, train_width = training_size(pipe)
    return height * width > train_height * train_width


def check_size(pipe: Any, height: int, width: int) -> None:
    """`check_sides`; ValueError also if the area is below the training area, where nothing is to be compared."""
    check_sides(pipe, height, width)
    train_height, train_width = training_size(pipe)
    if height * width < train_height * train_width:
        raise ValueError(
            f"{height}x{width} is below the training size {train_height}x{train_width}: nothing to scale up"
        )
