"""Enable and disable the method on a user's pipeline. What `Handle.disable` restores is bit for bit what was there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scalecrafter.auto import auto_settings
from scalecrafter.handle import Handle, enabled
from scalecrafter.pipeline import (
    check_sides,
    check_size,
    check_unet,
    is_above_training,
    training_size,
    uncompiled,
)
from scalecrafter.schedule import training_timestep
from scalecrafter.settings import Settings


def check_can_be_enabled(pipe: Any) -> None:
    """ValueError if the pipeline has no suitable U-Net or scheduler, or the method is already enabled on it."""
    check_unet(pipe)
    if uncompiled(pipe.unet) in enabled:
        raise ValueError("the method is already enabled on this pipeline: call scalecrafter.disable(pipe) first")
    training_timestep(pipe.scheduler, 1.0)


def check_pipeline(pipe: Any, height: int, width: int) -> None:
    """`check_can_be_enabled`; ValueError also for a size that cannot be sampled, or is below the training area."""
    check_can_be_enabled(pipe)
    check_size(pipe, height, width)


def enable(
    pipe: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    settings: str | Path | Mapping[str, Any] | Settings = "auto",
) -> Handle:
    """Enable ScaleCrafter for sampling above the training resolution.

    Args:
        pipe: any pipeline with a U-Net at ``.unet`` (SD 1.x, 2.x, SDXL: text-to-image, img2img, inpaint, ControlNet;
            video: AnimateDiff, ModelScope, Stable Video Diffusion), with any scheduler and number of steps.
        height: of the images to be sampled, in pixels, given together with ``width``; calls at another size raise.
            Without them each call is sampled with the settings for its own size, and at the training area or below by
            the plain model.
        width: of the images, in pixels.
        settings: "auto" (chosen by model family and size, see `auto_settings`), a `Settings`, or what `Settings.load`
            accepts: a name of `available_settings`, the path of a YAML file, or a parsed mapping.

    Returns:
        A `Handle`: use it as a context manager, or keep it and call `Handle.disable`.

    Raises:
        ValueError: unsupported or already enabled pipeline, size that does not fit the model, or settings that do not
            exist or do not fit. The pipeline is left unchanged. Later, when the pipeline is called: another size than
            the given one, guidance of a kind that cannot be damped, an adapter loaded since then that cannot be
            dilated, gradient checkpointing, or NaN from the U-Net in half precision.
    """
    check_can_be_enabled(pipe)
    chosen = settings if isinstance(settings, Settings) or settings == "auto" else Settings.load(settings)

    def settings_at(height: int, width: int) -> Settings:
        return chosen if isinstance(chosen, Settings) else auto_settings(pipe, height, width)

    if height is not None and width is not None:
        check_sides(pipe, height, width)
        return Handle(pipe, settings_at, (height, width), only=True)
    if height is not None or width is not None:
        raise ValueError("height and width are given together, or neither")
    train_height, train_width = training_size(pipe)

    def settings_for(height: int, width: int) -> Settings:
        return settings_at(height, width) if is_above_training(pipe, height, width) else Settings()

    # What does not fit the U-Net at four times the area raises now.
    return Handle(pipe, settings_for, (2 * train_height, 2 * train_width), only=False)


def enabled_handle(pipe: Any) -> Handle | None:
    """The handle that is enabled on the pipeline's U-Net."""
    unet = uncompiled(pipe.unet)
    return enabled[unet]() if unet in enabled else None


def active(pipe: Any) -> Settings | None:
    """The settings that are in force on a pipeline, or on another one that shares its U-Net.

    Args:
        pipe: any diffusers pipeline with a U-Net.

    Returns:
        At the size that was given to `enable`, or at that of the latest call; None if the method is not enabled.
    """
    handle = enabled_handle(pipe)
    return None if handle is None else handle.settings


def disable(pipe: Any) -> None:
    """Restore a pipeline without its handle, which may be lost; nothing happens if the method is not enabled on it.

    Args:
        pipe: the pipeline, or another one that shares its U-Net.
    """
    handle = enabled_handle(pipe)
    if handle is not None:
        handle.disable()
