"""One request while it is sampled: its stages, conditions as diffusers' pipelines make them, and randomness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from baselines.cascade.parts import Listed, Part, Trajectory, cosine
from baselines.cascade.sizes import Size
from baselines.method import Request
from scalecrafter.pipeline import is_sdxl


@dataclass(frozen=True)
class Conditions:
    """Text of a batch, [unconditional, conditional] halves if guided.

    Args:
        text: (N, tokens, channels), or (2 N, ...) if guided.
        pooled: (N or 2 N, channels) with SDXL.
        guided: whether there are both halves.
    """

    text: Tensor
    pooled: Tensor | None
    guided: bool

    def doubled(self, inputs: Tensor) -> Tensor:
        """A call's inputs (N, ...), once for each half."""
        return torch.cat([inputs] * 2) if self.guided else inputs

    def arguments(self, pipe: Any, size: Size) -> dict[str, Any]:
        """Keyword arguments of a U-Net call; ``size`` is what SDXL is told to be the original and target size."""
        if self.pooled is None:
            return {"encoder_hidden_states": self.text}
        width = int(self.pooled.shape[-1])
        times = pipe._get_add_time_ids(size, (0, 0), size, dtype=self.text.dtype, text_encoder_projection_dim=width)
        added = {"text_embeds": self.pooled, "time_ids": times.to(self.text.device).repeat(len(self.text), 1)}
        return {"encoder_hidden_states": self.text, "added_cond_kwargs": added}


def encode_prompts(pipe: Any, prompts: Sequence[str], guided: bool, negative: str | None = None) -> Conditions:
    """Encode prompts, and the negative prompt of all (None: the pipeline's own), with the pipeline's own method."""
    negatives = None if negative is None else [negative] * len(prompts)
    options: dict[str, Any] = {"negative_prompt": negatives, "do_classifier_free_guidance": guided}
    found = pipe.encode_prompt(list(prompts), device=pipe._execution_device, num_images_per_prompt=1, **options)
    if is_sdxl(pipe):
        cond, uncond, pooled, uncond_pooled = found
        if not guided:
            return Conditions(cond, pooled, guided)
        return Conditions(torch.cat([uncond, cond]), torch.cat([uncond_pooled, pooled]), guided)
    cond, uncond = found
    return Conditions(torch.cat([uncond, cond]) if guided else cond, None, guided)


@dataclass(frozen=True)
class Stage:
    """One size and what is sampled at it.

    Args:
        index: 0 for the first stage.
        size: (height, width) of the image in pixels.
        part: the steps.
        guidance_scale: of classifier-free guidance; without effect if the request is not guided.
        conditioned_on: the original and target size that SDXL is told.
    """

    index: int
    size: Size
    part: Part | Listed
    guidance_scale: float
    conditioned_on: Size


@dataclass
class Sampling:
    """One request while it is sampled: what the slots of `Cascade` are given.

    Attributes:
        stages: all stages; ``stage``: the current one.
        generators: one for each image. They give, in this order, the first noise, and for each later stage the
            encoder's noise, the noise of the restart and what the method draws.
        trajectory: of the current stage.
        reference, noise: clean latents and unit noise that the current stage started from; None in the first one.
        memory: what a method keeps from call to call and from stage to stage.
    """

    pipe: Any
    request: Request
    stages: Sequence[Stage]
    conditions: Conditions
    generators: list[torch.Generator]
    stage: Stage
    trajectory: Trajectory
    arguments: dict[str, Any] = field(default_factory=dict)
    reference: Tensor | None = None
    noise: Tensor | None = None
    memory: dict[str, Any] = field(default_factory=dict)

    def blended(self, latents: Tensor, t: Any, exponent: float | None) -> Tensor:
        """Latents of a call blended with the reference, which has the call's noise and `cosine` to the power of
        ``exponent`` as weight; as they are in the first stage, or with None.
        """
        if exponent is None or self.reference is None or self.noise is None:
            return latents
        weight = cosine(self.pipe.scheduler, t) ** exponent
        return (1 - weight) * latents + weight * self.trajectory.noised(self.reference, self.noise, t)

    def draw(self, like: Tensor) -> Tensor:
        """Unit Gaussian noise with the shape of ``like``, each image's from its generator."""
        return randn_tensor(like.shape, generator=self.generators, device=like.device, dtype=like.dtype)
