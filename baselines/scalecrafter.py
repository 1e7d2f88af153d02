"""ScaleCrafter under the benchmark's contract: `scalecrafter.enable`, with settings that an ablation may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from baselines.method import Calls, Request, UNetMethod
from scalecrafter.enable import Handle, check_pipeline, enable
from scalecrafter.pipeline import sampling_timesteps
from scalecrafter.schedule import reference_step
from scalecrafter.settings import Settings, resolve_settings


@dataclass(frozen=True)
class ScaleCrafter(UNetMethod):
    """The method with ``settings`` ("auto", a name, a path or `Settings`).

    For ablations: ``changes`` replaces fields of the settings (a None in it changes nothing), and ``radius`` is then
    the factor of every layer that they dilate.
    """

    settings: str | Settings = "auto"
    changes: Mapping[str, Any] = field(default_factory=dict)
    radius: float | None = None

    def resolve(self, pipe: Any, height: int, width: int) -> Settings:
        """The settings that `enable` will use at this size."""
        found = resolve_settings(self.settings, pipe, height, width)
        given = {name: value for name, value in self.changes.items() if value is not None}
        if given:
            found = Settings.from_mapping(found.to_dict() | given)
        return found if self.radius is None else replace(found, dilation=dict.fromkeys(found.dilation, self.radius))

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        with self.enable(pipe, height=height, width=width) as handle:
            return handle.settings.effective().to_dict()

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """Steps in which the same layers are dilated and dispersed alike are of one kind."""
        settings = self.resolve(pipe, request.height, request.width)
        (whole,) = super().calls(pipe, request)
        kinds: dict[str, list[float]] = {}
        for timestep in sampling_timesteps(pipe, request.sampler.steps):
            step = reference_step(timestep, pipe.scheduler.config.num_train_timesteps)
            kind = settings.at(step), step < settings.noise_damped_tau and settings.at(step, base_pass=True)
            kinds.setdefault(repr(kind), []).append(timestep)
        return [replace(whole, times=len(alike), timestep=alike[0]) for alike in kinds.values()]

    def enable(self, pipe: Any, *, height: int, width: int) -> Handle:
        check_pipeline(pipe, height, width)
        return enable(pipe, height=height, width=width, settings=self.resolve(pipe, height, width))
