"""What somebody chose to see, and the method, size and sampler that it stands for in the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from baselines.sampler import sampled_as
from baselines.scalecrafter import ScaleCrafter
from experiments.demo.parts import Parts, changes_for
from experiments.results.reading import CONTROLS
from experiments.setup.architecture import open_architecture
from experiments.setup.compose import compose_config, plain_values
from experiments.setup.runs import Workload, build_workload
from experiments.setup.schema import CONF
from scalecrafter.settings import Settings

DIRECT, OURS = "direct", "scalecrafter"
# Controls of the benchmark that sample nothing, and a method that needs another model of 3.5 GB.
NOT_DRAWN = {*CONTROLS, "upscale_sd"}
MOST_STEPS = 500  # with more, DDIM skips high noise levels or fails
LAST_SEED = 2**53 - 1  # a number in a web page has no more bits


@dataclass(frozen=True)
class Choice:
    """One image.

    Args:
        prompt, seed: what is sampled.
        height, width: in pixels.
        steps: of the scheduler.
        method: name of a file in conf/method.
        parts: of ScaleCrafter that are on; None: those of its settings for this model and size.

    Raises:
        ValueError: a seed or number of steps outside its range.
    """

    prompt: str
    seed: int
    height: int
    width: int
    steps: int
    method: str = OURS
    parts: Parts | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= LAST_SEED:
            raise ValueError(f"the seed is a whole number from 0 to {LAST_SEED}, not {self.seed}")
        if not 1 <= self.steps <= MOST_STEPS:
            raise ValueError(f"the steps are a whole number from 1 to {MOST_STEPS}, not {self.steps}")

    def direct(self) -> Choice:
        """The same by direct inference."""
        return replace(self, method=DIRECT, parts=None)


def method_names() -> list[str]:
    """All methods that can be compared with direct inference, ScaleCrafter first."""
    names = {path.stem for path in (CONF / "method").glob("*.yaml")} - NOT_DRAWN - {DIRECT}
    return sorted(names, key=lambda name: (not name.startswith(OURS), name))


def method_summary(name: str) -> str:
    """What a method does: the first line of its file in conf/method."""
    return (CONF / "method" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


@lru_cache(maxsize=128)
def configured(overrides: tuple[str, ...], method: str) -> Workload:
    """A method on the model of these overrides, with the model's usual sampling; no weights are loaded.

    Raises:
        ValueError: a configuration that is wrong, or a method that is not there.
        FileNotFoundError: no such model.
    """
    config = compose_config([*overrides, f"method={method}", "batch_size=1"])
    return build_workload(config, plain_values(config), open_architecture)


def workload_of(overrides: Sequence[str], choice: Choice) -> Workload:
    """The workload of one image; see `configured` for errors. Uses the model's pipeline without weights."""
    found = configured(tuple(overrides), choice.method)
    found = replace(
        found,
        height=choice.height,
        width=choice.width,
        resolution=f"{choice.height}x{choice.width}",
        sampler=replace(found.sampler, steps=choice.steps),
    )
    if choice.parts is None or not isinstance(found.method, ScaleCrafter):
        return found
    levels = len(found.model.shape.unet.config.block_out_channels)
    changes = changes_for(settings_of(found), choice.parts, levels)
    return replace(found, method=replace(found.method, changes={**found.method.changes, **changes}))


def settings_of(workload: Workload) -> Settings:
    """ScaleCrafter's settings for a workload of it; ValueError if there are none for this model."""
    assert isinstance(workload.method, ScaleCrafter)
    return workload.method.resolve(workload.model.shape, workload.height, workload.width)


def check_workload(workload: Workload) -> None:
    """ValueError, with one sentence, for a size or scheduler that the method does not support."""
    with sampled_as(workload.model.shape, workload.sampler):
        workload.method.describe(workload.model.shape, workload.height, workload.width)
