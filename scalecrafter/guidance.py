"""Noise-damped classifier-free guidance (paper section 3.4): a less dilated model removes the noise, the dilated model
provides the guidance direction.

The paper's prediction is base(x) + w (dilated(x, prompt) - dilated(x)). Pipelines compute u + w (c - u) from the two
halves of one U-Net call. Rewriting these halves gives the paper's prediction without changing any pipeline.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def noise_damped(base_uncond: Tensor, uncond: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
    """(u', c') with u' + w (c' - u') = base_uncond + w (cond - uncond) for every guidance scale w.

    Args:
        base_uncond: unconditional noise prediction of the base (less dilated) model, any shape.
        uncond, cond: predictions of the dilated model, same shape.
    """
    return base_uncond, base_uncond + (cond - uncond)


def check_damping_possible(pipe: Any) -> None:
    """ValueError for pipeline classes whose guidance is not u + w (c - u) of two halves."""
    for mark, what in (
        ("image_guidance_scale", "also guides by the image"),
        ("pag_scale", "also guides by perturbed attention"),
    ):
        if hasattr(type(pipe), mark):
            raise ValueError(
                f"{type(pipe).__name__} {what}: noise-damped guidance is not defined for it, set noise_damped_tau to 0"
            )


def check_guidance(pipe: Any, batch: int) -> None:
    """ValueError if the current U-Net call has no [uncond, cond] pairs, or the pipeline rescales its guidance."""
    if getattr(pipe, "do_classifier_free_guidance", True) is False or batch % 2:
        raise ValueError(
            "noise-damped guidance needs classifier-free guidance: use a guidance_scale above 1, "
            "or settings with noise_damped_tau 0"
        )
    if getattr(pipe, "guidance_rescale", 0.0) > 0:
        raise ValueError(
            "guidance_rescale uses the conditional prediction, which noise-damped guidance rewrites: "
            "use guidance_rescale=0, or settings with noise_damped_tau 0"
        )
