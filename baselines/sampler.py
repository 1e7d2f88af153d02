"""The recipe that images are sampled with, whatever the method: `Sampler`, and the pipeline while it samples so."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from scalecrafter.freeu import Amplification, FreeU, amplified, freeu_plan
from scalecrafter.patching import replaced_attribute
from scalecrafter.pipeline import is_sdxl, training_size

SCHEDULERS = {"ddim": "DDIMScheduler", "euler": "EulerDiscreteScheduler"}
CONDITIONED_ON = ("base", "stage", "target")


@dataclass(frozen=True)
class Sampler:
    """Sampling options.

    Args:
        steps: at least 1.
        guidance_scale: of classifier-free guidance, at least 0; at 1 and below there is none.
        eta: DDIM's, from 0 (deterministic) to 1 (as noisy as DDPM).
        scheduler: ddim or euler, made from the configuration of the pipeline's own; None: that one.
        negative_prompt: of the unconditional half; None: the pipeline's own, which is empty.
        freeu: FreeU in every call of the U-Net; None: as the method says, mostly never.
        size_condition: SDXL only: what the U-Net is told to be the original and target size: the training size
            (``base``), that of what is sampled (``stage``) or that of the image (``target``). None: as the method
            says, mostly that of the image.

    Raises:
        ValueError: an option outside its range.
    """

    steps: int = 50
    guidance_scale: float = 7.5
    eta: float = 0.0
    scheduler: str | None = None
    negative_prompt: str | None = None
    freeu: FreeU | None = None
    size_condition: str | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"sampling needs at least 1 step, not {self.steps}")
        if not 0 <= self.guidance_scale < math.inf:
            raise ValueError(f"sampler.guidance_scale is a number of at least 0, not {self.guidance_scale:g}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"sampler.eta is a number from 0 to 1, not {self.eta:g}")
        if self.scheduler not in (None, *SCHEDULERS):
            raise ValueError(
                f"sampler.scheduler is {', '.join(SCHEDULERS)} or null (the model's), not {self.scheduler!r}"
            )
        if self.size_condition not in (None, *CONDITIONED_ON):
            raise ValueError(
                f"sampler.size_condition is {', '.join(CONDITIONED_ON)} or null (the method's), "
                f"not {self.size_condition!r}"
            )

    @property
    def guided(self) -> bool:
        """Whether each sample has an unconditional half too."""
        return self.guidance_scale > 1

    def arguments(self, pipe: Any, count: int) -> dict[str, Any]:
        """What a call of a stock pipeline for ``count`` prompts is given beside prompts and sizes."""
        found: dict[str, Any] = {
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "eta": self.eta,
        }
        if self.negative_prompt is not None:
            found["negative_prompt"] = [self.negative_prompt] * count
        if self.size_condition == "base" and is_sdxl(pipe):
            found |= {"original_size": training_size(pipe), "target_size": training_size(pipe)}
        return found


def own_scheduler(pipe: Any, name: str) -> Any:
    """A scheduler of this name (a key of `SCHEDULERS`) with the noise levels of the pipeline's own."""
    import diffusers

    return getattr(diffusers, SCHEDULERS[name]).from_config(pipe.scheduler.config)


@contextmanager
def sampled_as(pipe: Any, sampler: Sampler) -> Iterator[None]:
    """The pipeline with the sampler's scheduler and FreeU; exactly as before on exit."""
    with ExitStack() as changes:
        if sampler.scheduler is not None:
            scheduler = own_scheduler(pipe, sampler.scheduler)
            changes.enter_context(replaced_attribute(pipe, "scheduler", scheduler))
        if sampler.freeu is not None:
            for name, amplification in freeu_plan(pipe.unet, sampler.freeu).items():
                hook = partial(amplify_input, amplification)
                changes.callback(pipe.unet.get_submodule(name).register_forward_pre_hook(hook).remove)
        yield


def amplify_input(amplification: Amplification, resnet: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """A pre-forward hook of a resnet of the up blocks."""
    return (amplified(args[0], *amplification), *args[1:])
