"""ScaleCrafter inside a cascade, an option of our own: structure comes from a sample of the training size, and layers
are dilated only in the first steps of the later stage.

A sample of the training size has each object once, but it is small. It is enlarged, noised to the middle of the
schedule and sampled again at the target size: from there on an undilated U-Net would put small objects into the
picture while noise is high, which re-dilation keeps it from, and the last steps add detail with the U-Net as it is.
Half of the calls at the target size are saved, and so is the base pass of noise-damped guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from baselines.cascade.sampling import Sampling
from baselines.cascade.sdedit import SDEdit
from baselines.cascade.sizes import Size
from baselines.method import Calls, Request
from baselines.scalecrafter import ScaleCrafter
from scalecrafter.enable import enable
from scalecrafter.patching import replaced_attribute
from scalecrafter.pipeline import latent_size
from scalecrafter.schedule import REFERENCE_STEPS, step_of_call
from scalecrafter.settings import Settings


@dataclass(frozen=True)
class ScaleCrafterCascade(SDEdit):
    """`SDEdit` with ScaleCrafter's settings in the first steps of later stages.

    Args:
        space: enlarge latents, or decoded images ("rgb"), which are encoded again.
        skip: share of the schedule that later stages skip.
        count: 2 goes straight to the target; None: sides double from stage to stage.
        scalecrafter: whose settings later stages have, each for its size.
        tau: step of 50, counted over the whole schedule, from which on the U-Net is plain; None: as the settings say.
        noise_damped: damp the noise of guidance up to ``tau`` (None: as far as the settings do), with the base pass
            of the settings; it costs half a call more in each such step.

    Raises:
        ValueError: an option outside its range.
    """

    size_condition: str = "target"
    count: int | None = 2
    space: str = "rgb"
    skip: float = 0.5
    scalecrafter: ScaleCrafter = field(default_factory=ScaleCrafter)
    tau: int | None = 30
    noise_damped: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau is not None and not 0 <= self.tau <= REFERENCE_STEPS:
            raise ValueError(f"tau counts the paper's steps, from 0 to 50, not {self.tau}")

    def settings_at(self, pipe: Any, size: Size) -> Settings:
        """Settings of a later stage."""
        found = self.scalecrafter.resolve(pipe, *size)
        changes = {} if self.tau is None else {"tau": self.tau, "noise_damped_tau": self.tau}
        return found.changed(changes | ({} if self.noise_damped else {"noise_damped_tau": 0}))

    def settings(self, sampling: Sampling) -> Settings | None:
        if sampling.stage.index == 0:
            return None
        found = self.settings_at(sampling.pipe, sampling.stage.size)
        return found if sampling.conditions.guided else found.changed({"noise_damped_tau": 0})

    def sample_stage(self, sampling: Sampling, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Noise damping reads from the pipeline whether calls are guided."""
        with replaced_attribute(sampling.pipe, "_guidance_scale", sampling.stage.guidance_scale):
            return super().sample_stage(sampling, latents)

    def options(self, pipe: Any, sizes: Sequence[Size]) -> dict[str, Any]:
        found = super().options(pipe, sizes)
        for name in ("scalecrafter", "tau", "noise_damped"):  # what they come to is in the settings
            del found[name]
        return found | {"settings": [self.settings_at(pipe, size).effective().to_dict() for size in sizes[1:]]}

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        """The effective settings of each later stage, after checking that they fit the pipeline."""
        found = super().describe(pipe, height, width)
        for stage_height, stage_width in found["sizes"][1:]:
            settings = self.settings_at(pipe, (stage_height, stage_width))
            with enable(pipe, height=stage_height, width=stage_width, settings=settings):
                pass
        return found

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """The U-Net calls of each stage, and the base passes of noise-damped guidance on half a batch."""
        found = super().calls(pipe, request)
        if not (self.noise_damped and request.sampler.guided):
            return found
        for stage in self.stages(pipe, request.height, request.width, request.sampler)[1:]:
            settings = self.settings_at(pipe, stage.size)
            steps = [step_of_call(pipe.scheduler, t) for t in stage.part.trajectory(pipe.scheduler).timesteps]
            damped = [step for step in steps if step < settings.noise_damped_tau]
            times = sum(settings.at(step) != settings.at(step, base_pass=True) for step in damped)
            if times:
                found.append(Calls(times, request.samples // 2, *latent_size(pipe, stage.size)))
        return found
