"""ScaleCrafter behind the benchmark's contract: `scalecrafter.enable`, with settings that ablations may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from baselines.method import Calls, Request, UNetMethod
from scalecrafter.auto import auto_settings
from scalecrafter.enable import Handle, check_pipeline, enable
from scalecrafter.pipeline import sampling_timesteps
from scalecrafter.schedule import step_of_call
from scalecrafter.settings import Settings


@dataclass(frozen=True)
class ScaleCrafter(UNetMethod):
    """The method with given settings.

    Args:
        settings: "auto", a `Settings`, or what `Settings.load` accepts.
        changes: for ablations, fields of the settings to replace; None values are ignored. Between the sizes of two
            tables factors and windows are replaced in both.
        radius: for ablations, the factor of every layer that the settings dilate, likewise.
        tables: area ratio to the training size -> settings file, from which "auto" chooses; for models that the
            library ships no settings for.
    """

    settings: str | Path | Mapping[str, Any] | Settings = "auto"
    changes: Mapping[str, Any] = field(default_factory=dict)
    radius: float | None = None
    tables: Mapping[float | str, str | Path] | None = None

    def resolve(self, pipe: Any, height: int, width: int) -> Settings:
        """The settings that `enable` uses at this size in pixels."""
        if isinstance(self.settings, Settings):
            found = self.settings
        elif self.settings == "auto":
            files = self.tables or {}
            tables = {float(area): Settings.load(file) for area, file in files.items()} or None
            found = auto_settings(pipe, height, width, tables)
        else:
            found = Settings.load(self.settings)
        changes = {name: value for name, value in self.changes.items() if value is not None}
        if changes:
            found = found.changed(changes)
        if self.radius is None:
            return found
        return found.changed({"dilation": dict.fromkeys(found.dilation, self.radius)})

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        """The effective settings, after checking that they fit the pipeline."""
        with self.enable(pipe, height=height, width=width) as handle:
            return handle.settings.effective().to_dict()

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """One kind for all steps in which the same layers are dilated and dispersed alike."""
        settings = self.resolve(pipe, request.height, request.width)
        (at_full_size,) = super().calls(pipe, request)
        kinds: dict[str, list[float]] = {}
        for timestep in sampling_timesteps(pipe, request.sampler.steps):
            step = step_of_call(pipe.scheduler, timestep)
            kind = settings.at(step), step < settings.noise_damped_tau and settings.at(step, base_pass=True)
            kinds.setdefault(repr(kind), []).append(timestep)
        found = []
        for alike in kinds.values():
            step = step_of_call(pipe.scheduler, alike[0])
            damped = request.sampler.guided and step < settings.noise_damped_tau
            base_pass = damped and settings.at(step) != settings.at(step, base_pass=True)
            added = request.samples // 2 if base_pass else 0
            found.append(replace(at_full_size, times=len(alike), timestep=alike[0], added=added))
        return found

    def enable(self, pipe: Any, *, height: int, width: int) -> Handle:
        check_pipeline(pipe, height, width)
        return enable(pipe, height=height, width=width, settings=self.resolve(pipe, height, width))
