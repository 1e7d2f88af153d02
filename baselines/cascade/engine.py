"""The loop of all cascades: sample at the training size, enlarge the clean estimate, add noise, denoise at the larger
size, and so on, with slots in which a method intervenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.cascade.images import decode
from baselines.cascade.parts import Listed, Part, check_scheduler
from baselines.cascade.sampling import Sampling, Stage, encode_prompts
from baselines.cascade.sizes import Size, start_size
from baselines.method import Calls, Request, Sampler, as_uint8, check_finite
from baselines.sampler import CONDITIONED_ON, sampled_as
from scalecrafter.enable import check_pipeline, enable
from scalecrafter.pipeline import is_sdxl, latent_size
from scalecrafter.settings import Settings


@dataclass(frozen=True)
class Cascade:
    """Base of all cascades: subclasses give `sizes`, `parts` and `relay`, and override the slots they need.

    Args:
        size_condition: SDXL only: what later stages are told to be the original and target size, that of the
            ``base``, of the ``stage`` or of the ``target``.
        count: number of sizes, 2 or more; None: what the method chooses.
    """

    size_condition: str = "stage"
    count: int | None = None

    def __post_init__(self) -> None:
        if self.size_condition not in CONDITIONED_ON:
            raise ValueError(f"size_condition must be {', '.join(CONDITIONED_ON)}, not {self.size_condition!r}")
        if self.count is not None and self.count < 2:
            raise ValueError(f"count, the number of sizes, must be 2 or more, not {self.count}")

    # What a method is made of.

    def sizes(self, pipe: Any, base: Size, target: Size) -> list[Size]:
        """Sizes of the stages in pixels, from ``base`` to ``target``; one size if both are equal."""
        raise NotImplementedError

    def parts(self, pipe: Any, sizes: Sequence[Size], steps: int) -> Sequence[Part | Listed]:
        """The steps of each stage."""
        raise NotImplementedError

    def guidance(self, index: int, sizes: Sequence[Size], scale: float) -> float:
        """Guidance scale of a stage, from that of the request."""
        return scale

    def relay(self, sampling: Sampling, latents: Tensor, clean: Tensor) -> Tensor:
        """Clean latents at the size of ``sampling.stage``, from what the stage before ended with.

        Args:
            latents: after its last step.
            clean: the clean latents estimated in its last U-Net call.
        """
        raise NotImplementedError

    # Slots. By default they do nothing.

    def settings(self, sampling: Sampling) -> Settings | None:
        """Layers to dilate, and FreeU, in the current stage."""
        return None

    def changed_unet(self, sampling: Sampling, t: Any) -> AbstractContextManager[Any]:
        """Changes of the U-Net in one call."""
        return nullcontext()

    def before_call(self, sampling: Sampling, latents: Tensor, t: Any) -> Tensor:
        """The latents that a call and its step start from."""
        return latents

    def predict(self, sampling: Sampling, inputs: Tensor, t: Any) -> Tensor:
        """The guided prediction for the U-Net's inputs (N, C, rows, columns)."""
        pair = sampling.conditions.doubled(inputs)
        with self.changed_unet(sampling, t):
            prediction: Tensor = sampling.pipe.unet(pair, t, **sampling.arguments, return_dict=False)[0]
        return self.guide_halves(sampling, prediction)

    def guide_halves(self, sampling: Sampling, prediction: Tensor) -> Tensor:
        """What both halves of a prediction give, or the prediction itself if there is but one."""
        return self.guide(sampling, *prediction.chunk(2)) if sampling.conditions.guided else prediction

    def guide(self, sampling: Sampling, uncond: Tensor, cond: Tensor) -> Tensor:
        """Classifier-free guidance."""
        return uncond + sampling.stage.guidance_scale * (cond - uncond)

    def edit_clean(self, sampling: Sampling, clean: Tensor, t: Any) -> Tensor | None:
        """Another clean estimate for a call, or None to keep the prediction."""
        return None

    def end_stage(self, sampling: Sampling, latents: Tensor) -> Tensor:
        """The latents that a stage ends with."""
        return latents

    # The contract of `baselines.method`.

    def options(self, pipe: Any, sizes: Sequence[Size]) -> dict[str, Any]:
        """What affects pixels besides the sizes: the fields, resolved where None stands for the method's choice."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.compare}

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        """See `baselines.method.Method.describe`."""
        check_pipeline(pipe, height, width)
        check_inputs_of(pipe)
        stages = self.stages(pipe, height, width, Sampler())
        for stage in stages:
            stage.part.trajectory(pipe.scheduler)
        sizes = [stage.size for stage in stages]
        options = self.options(pipe, sizes)
        del options["count"]
        if not is_sdxl(pipe):
            del options["size_condition"]
        return options | {"sizes": [list(size) for size in sizes]}

    def stages(self, pipe: Any, height: int, width: int, sampler: Sampler) -> list[Stage]:
        """The stages for an image of this size in pixels; ValueError if the scheduler or number of steps is unfit."""
        check_scheduler(pipe.scheduler)
        target = (height, width)
        sizes = self.sizes(pipe, start_size(pipe, height, width), target)
        found = []
        for index, (size, part) in enumerate(zip(sizes, self.parts(pipe, sizes, sampler.steps), strict=True)):
            condition = sampler.size_condition or self.size_condition
            told = {"base": sizes[0], "stage": size, "target": target}[condition] if index else size
            scale = self.guidance(index, sizes, sampler.guidance_scale)
            found.append(Stage(index, size, part, scale, told))
        return found

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """The U-Net calls of each stage."""
        stages = self.stages(pipe, request.height, request.width, request.sampler)
        return [
            Calls(
                len(stage.part.trajectory(pipe.scheduler).timesteps), request.samples, *latent_size(pipe, stage.size)
            )
            for stage in stages
        ]

    @torch.no_grad()
    def generate(self, pipe: Any, request: Request) -> NDArray[np.uint8]:
        """See `baselines.method.Method.generate`; ValueError if the model returns NaN or infinity."""
        with sampled_as(pipe, request.sampler):
            latents = self.sample(pipe, request)
        images = pipe.image_processor.postprocess(decode(pipe, latents), output_type="np")
        pipe.maybe_free_model_hooks()
        return as_uint8(images)

    def sample(self, pipe: Any, request: Request) -> Tensor:
        """The latents (N, C, rows, columns) of the images."""
        sampler = request.sampler
        stages = self.stages(pipe, request.height, request.width, sampler)
        conditions = encode_prompts(pipe, request.prompts, sampler.guided, sampler.negative_prompt)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in request.seeds]
        device = pipe._execution_device
        first = stages[0].part.trajectory(pipe.scheduler, device)
        sampling = Sampling(pipe, request, stages, conditions, generators, stages[0], first)
        shape = (len(generators), pipe.unet.config.in_channels, *latent_size(pipe, stages[0].size))
        latents = clean = conditions.text.new_empty(shape)
        for stage in stages:
            sampling.stage = stage
            sampling.trajectory = stage.part.trajectory(pipe.scheduler, device)
            sampling.arguments = conditions.arguments(pipe, stage.conditioned_on)
            if stage.index == 0:
                latents = sampling.trajectory.pure_noise(sampling.draw(latents))
            else:
                sampling.reference = self.relay(sampling, latents, clean)
                sampling.noise = sampling.draw(sampling.reference)
                begin = sampling.trajectory.timesteps[0]
                latents = sampling.trajectory.noised(sampling.reference, sampling.noise, begin)
            latents, clean = self.sample_stage(sampling, latents)
            check_finite(latents)
        return latents

    def sample_stage(self, sampling: Sampling, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(latents after the last step, clean latents estimated in the last call) of the current stage."""
        pipe, trajectory, stage = sampling.pipe, sampling.trajectory, sampling.stage
        clean, settings = latents, self.settings(sampling)
        height, width = stage.size
        changes: AbstractContextManager[Any] = nullcontext()
        if settings is not None:
            changes = enable(pipe, height=height, width=width, settings=settings)
        with changes:
            for t in trajectory.timesteps:
                latents = self.before_call(sampling, latents, t)
                inputs = trajectory.scaled(latents, t)
                prediction = self.predict(sampling, inputs, t)
                clean = trajectory.clean(prediction, inputs, t)
                edited = self.edit_clean(sampling, clean, t)
                if edited is not None:
                    clean, prediction = edited, trajectory.prediction(edited, inputs, t)
                latents = trajectory.step(prediction, t, latents, sampling.request.sampler.eta, sampling.generators)
        return self.end_stage(sampling, latents), clean


def check_inputs_of(pipe: Any) -> None:
    """ValueError for a pipeline whose U-Net needs more than a latent, a timestep and a prompt."""
    config = pipe.unet.config
    if type(pipe.unet).__name__ != "UNet2DConditionModel" or config.in_channels != pipe.vae.config.latent_channels:
        raise ValueError(
            f"cascades sample text-to-image pipelines; the U-Net of {type(pipe).__name__} needs more inputs"
        )
    if config.time_cond_proj_dim is not None:
        raise ValueError("this U-Net takes the guidance scale as an input (LCM), and stages with other scales differ")
