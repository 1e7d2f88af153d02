"""Noise-damped classifier-free guidance (paper section 3.4): a less dilated model removes the noise, the dilated model
provides the guidance direction.

The paper's prediction is base(x) + w (dilated(x, prompt) - dilated(x)). Pipelines compute u + w (c - u) from the two
halves of one U-Net call. Rewriting these halves gives the paper's prediction without changing any pipeline.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from scalecrafter.pipeline import uncompiled


def noise_damped(base_uncond: Tensor, uncond: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
    """(u', c') with u' + w (c' - u') = base_uncond + w (cond - uncond) for every guidance scale w (paper section 3.4).

    Args:
        base_uncond: unconditional noise prediction of the base (less dilated) model, any shape.
        uncond: unconditional prediction of the dilated model, same shape.
        cond: its conditional prediction, same shape.

    Returns:
        Both halves to use instead of ``uncond`` and ``cond``, same shape.
    """
    return base_uncond, base_uncond + (cond - uncond)


# Pipelines whose U-Net call holds the halves [uncond, cond], and whose guidance is u + w (c - u).
COMMON = ("", "Img2Img", "Inpaint", "Adapter", "ControlNet", "ControlNetImg2Img", "ControlNetInpaint", "ControlNetXS")
HALVES = {
    *(f"StableDiffusion{kind}Pipeline" for kind in (*COMMON, "Depth2Img", "GLIGEN", "LDM3D", "Upscale")),
    *(f"StableDiffusionXL{kind}Pipeline" for kind in COMMON),
    *(f"StableDiffusionXLControlNetUnion{kind}Pipeline" for kind in ("", "Img2Img", "Inpaint")),
    *("KolorsPipeline", "KolorsImg2ImgPipeline"),
    *(f"AnimateDiff{kind}Pipeline" for kind in ("", "ControlNet", "SDXL", "VideoToVideo", "VideoToVideoControlNet")),
    *("TextToVideoSDPipeline", "VideoToVideoSDPipeline", "StableVideoDiffusionPipeline"),
}
MODULAR = "diffusers.modular_pipelines"


@dataclass(frozen=True)
class Caller:
    """Who calls a U-Net.

    Args:
        pipe: the diffusers pipeline that calls, or the given one for a call from elsewhere.
        guided: whether the pipeline says that this call is guided.
        last: timestep of the last call of this sampling; None: unknown.
        modular: a modular pipeline calls, which evaluates each branch of guidance by itself.
    """

    pipe: Any
    guided: bool = True
    last: Tensor | float | None = None
    modular: bool = False

    def is_guided(self, batch: int) -> bool:
        """Whether a call with this batch is guided; not at scale 1, nor in distilled models.

        Raises:
            ValueError: guidance of a kind that cannot be damped.
        """
        if self.modular:
            raise ValueError(
                "modular pipelines evaluate the branches of guidance one by one, and noise-damped guidance needs both "
                "in one call: use settings with noise_damped_tau 0"
            )
        check_damping_possible(self.pipe)
        if not self.guided:
            return False
        if batch % 2:
            raise ValueError(
                "noise-damped guidance needs classifier-free guidance, [uncond, cond] in one call: "
                "use settings with noise_damped_tau 0"
            )
        if getattr(self.pipe, "guidance_rescale", 0.0) > 0:
            raise ValueError(
                "guidance_rescale uses the conditional prediction, which noise-damped guidance rewrites: "
                "use guidance_rescale=0, or settings with noise_damped_tau 0"
            )
        return True


def caller_of(unet: Any, pipe: Any) -> Caller:
    """Who is calling ``unet`` now: any pipeline that holds it, not only ``pipe``, on which the method was enabled."""
    from diffusers import DiffusionPipeline

    name = "do_classifier_free_guidance"  # a property of most pipelines, a local variable in the older ones
    frame = sys._getframe(1)
    while frame is not None:
        # Only methods are looked into: the values that a frame shows live as long as its function runs.
        owner = frame.f_locals.get("self") if frame.f_code.co_varnames[:1] == ("self",) else None
        if isinstance(owner, DiffusionPipeline) and uncompiled(getattr(owner, "unet", None)) is unet:
            local = frame.f_locals
            guided = bool(getattr(owner, name, local.get(name, True)))
            return Caller(owner, guided, last_timestep(owner.scheduler, local.get("timesteps")))
        if frame.f_globals.get("__name__", "").startswith(MODULAR):
            return Caller(pipe, modular=True)
        frame = frame.f_back  # type: ignore[assignment]
    return Caller(pipe, bool(getattr(pipe, name, True)), last_timestep(pipe.scheduler))


def last_timestep(scheduler: Any, timesteps: Any = None) -> Tensor | float | None:
    """Of those that a pipeline goes through (SDXL's ``denoising_end`` leaves out the last ones), or else of the
    scheduler's own.
    """
    chosen = getattr(scheduler, "timesteps", None) if timesteps is None else timesteps
    return None if chosen is None or len(chosen) == 0 else chosen[-1]


def check_damping_possible(pipe: Any) -> None:
    """ValueError for a diffusers pipeline whose guidance is not known to be u + w (c - u) of two halves."""
    from diffusers import DiffusionPipeline

    if isinstance(pipe, DiffusionPipeline) and type(pipe).__name__ not in HALVES:
        raise ValueError(
            f"noise-damped guidance is not defined for {type(pipe).__name__}, whose guidance is not known to be "
            "u + w (c - u) of two halves of one call: set noise_damped_tau to 0"
        )
