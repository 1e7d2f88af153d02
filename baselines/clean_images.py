"""The clean latent that a prediction promises, and gradients of a distance of its image, with little memory.

Gradients take most of SyncDiffusion's memory. They are computed for one window at a time, and the blocks of the U-Net
and of the decoder can be run again on the way back instead of keeping what they computed (Chen et al. 2016, arXiv
1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from baselines.cascade.images import decode
from scalecrafter.patching import Forward, replaced_forward
from scalecrafter.schedule import timestep_value

UNET_BLOCKS = (ResnetBlock2D, BasicTransformerBlock)
DECODER_BLOCKS = (ResnetBlock2D, Attention, Upsample2D)


def clean_latent(pipe: Any, pair: Tensor, prediction: Tensor, timestep: Any) -> Tensor:
    """The predicted clean latent (N, C, h, w) in float32, guided if the call holds [uncond, cond]."""
    pair, prediction = pair.float(), prediction.float()
    if getattr(pipe, "do_classifier_free_guidance", False):
        uncond, cond = prediction.chunk(2)
        prediction, pair = uncond + pipe.guidance_scale * (cond - uncond), pair.chunk(2)[0]
    alpha = pipe.scheduler.alphas_cumprod[int(timestep_value(timestep))].to(pair)
    kind = pipe.scheduler.config.prediction_type
    if kind == "epsilon":
        return (pair - (1 - alpha).sqrt() * prediction) / alpha.sqrt()
    if kind == "v_prediction":
        return alpha.sqrt() * pair - (1 - alpha).sqrt() * prediction
    return prediction


def window_gradient(
    pipe: Any,
    predict: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor], Tensor],
    latent: Tensor,
    halves: int,
    timestep: Any,
) -> Tensor:
    """Gradient of a distance of a window's predicted clean image by its latent, in float32.

    The U-Net's part is computed for a gradient of about one, by a power of two that is divided out again: those of an
    image are too small for half precision.

    Args:
        predict: the U-Net's prediction for the latent, once for each half of guidance.
        distance: from the clean image (N, 3, H, W), float32 whatever the pipeline is, to the target, (N,).
        latent: (N, C, h, w).
        halves: of guidance, 1 or 2, which share the latent.
    """
    with torch.enable_grad():
        latent = latent.detach().requires_grad_()
        pair = torch.cat([latent] * halves)
        clean = clean_latent(pipe, pair, predict(pair), timestep)
        start = clean.detach().requires_grad_()
        (outer,) = torch.autograd.grad(distance(decode(pipe, start).float()).sum(), start)
        _, exponent = torch.frexp(outer.abs().amax((1, 2, 3), keepdim=True))
        (inner,) = torch.autograd.grad(clean, latent, torch.ldexp(outer, -exponent))
        return torch.ldexp(inner.float(), exponent)


@contextmanager
def recomputed(pipe: Any) -> Iterator[None]:
    """Run the blocks of the U-Net and of the decoder again for a gradient instead of keeping what they compute."""
    with ExitStack() as stack:
        for model, blocks in ((pipe.unet, UNET_BLOCKS), (pipe.vae.decoder, DECODER_BLOCKS)):
            for module in model.modules():
                if isinstance(module, blocks):
                    stack.enter_context(replaced_forward(module, run_again))
        yield


def run_again(plain: Forward) -> Forward:
    """A forward of which only the input is kept for a gradient."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return plain(*args, **kwargs)
        return checkpoint(plain, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return forward
