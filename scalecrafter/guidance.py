"""Noise-damped classifier-free guidance (paper section 3.4): a less dilated model removes the noise, the dilated one
gives the direction of the prompt.

The paper's prediction is base(x) + w (dilated(x, prompt) - dilated(x)). Pipelines compute u + w (c - u) themselves,
from the two halves of one U-Net call; so these halves are rewritten, and no pipeline has to be changed.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def noise_damped(base_uncond: Tensor, uncond: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
    """(u', c') such that u' + w (c' - u') = base_uncond + w (cond - uncond) for every guidance scale w.

    Args:
        base_uncond: unconditional noise prediction of the base (less dilated) model, any shape.
        uncond, cond: predictions of the dilated model, of the same shape.
    """
    return base_uncond, base_uncond + (cond - uncond)


def check_damping_possible(pipe: Any) -> None:
    """ValueError if guidance in this kind of pipeline is not u + w (c - u) of two halves."""
    for mark, what in (("image_guidance_scale", "guides by the picture too"), ("pag_scale", "perturbs the attention")):
        if hasattr(type(pipe), mark):
            raise ValueError(
                f"{type(pipe).__name__} {what}: noise-damped guidance is not defined for it, set noise_damped_tau to 0"
            )


def check_guidance(pipe: Any, batch: int) -> None:
    """ValueError if the call now under way has no [uncond, cond] pairs, or rescales its guidance."""
    if getattr(pipe, "do_classifier_free_guidance", True) is False or batch % 2:
        raise ValueError(
            "noise-damped guidance needs classifier-free guidance: use a guidance_scale above 1, "
            "or settings with noise_damped_tau 0"
        )
    if getattr(pipe, "guidance_rescale", 0.0) > 0:
        raise ValueError(
            "guidance_rescale looks at the conditional prediction alone, which noise-damped guidance rewrites: "
            "use guidance_rescale=0, or settings with noise_damped_tau 0"
        )
