"""Drawing what was chosen: one image after the other, each once, with an estimate before and progress meanwhile."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from baselines.method import Request
from experiments.cost.counting import counted_evaluations
from experiments.cost.planned import PlannedRun
from experiments.cost.planning import Plan, plan_run
from experiments.cost.probing import device_memory
from experiments.demo.choice import DIRECT, OURS, Choice, check_workload, configured, settings_of, workload_of
from experiments.demo.parts import Parts, parts_of
from experiments.demo.sizes import check_area
from scalecrafter.memory import is_out_of_memory
from scalecrafter.pipeline import training_size

KEPT_BYTES = 512e6  # of images
SHAPES = threading.RLock()  # pipelines without weights are changed while they are asked


class Cancelled(Exception):
    """Somebody asked to stop. The pipeline is restored."""


@contextmanager
def watched(pipe: Any, asked_to_stop: Callable[[], bool]) -> Iterator[list[float]]:
    """Fill a list as `counted_evaluations` does, and ask before each block of the U-Net and the autoencoder.

    Raises:
        Cancelled: out of the sampling inside, before the next block after ``asked_to_stop`` has become true.
    """

    def check(module: nn.Module, args: Any) -> None:
        if asked_to_stop():
            raise Cancelled

    blocks = [
        module
        for part in (pipe.unet, pipe.vae)
        for module in part.modules()
        if type(module).__name__.endswith("Block2D")  # of resnets too: a block may take a second
    ]
    with ExitStack() as hooks:
        for block in blocks:
            hooks.callback(block.register_forward_pre_hook(check).remove)
        yield hooks.enter_context(counted_evaluations(pipe.unet))


@dataclass(frozen=True)
class Drawn:
    """An image (height, width, 3) uint8, and the seconds that it took."""

    image: NDArray[np.uint8]
    seconds: float


@dataclass
class Job:
    """An image on its way.

    Args:
        expected: seconds that it was estimated to take.
        stop: set it, and the job ends within a step with `Cancelled`.
        ahead: how many jobs were before it when it was made.
    """

    choice: Choice
    plan: Plan
    expected: float
    stop: threading.Event
    ahead: int
    done: list[float] = field(default_factory=list)
    started: float | None = None
    ended: float | None = None
    future: Future[Drawn] = field(default_factory=Future)

    def share(self) -> float:
        """Of the work that is done, 0 to 1."""
        return min(1.0, sum(self.done) / self.plan.evaluations)

    def elapsed(self) -> float:
        """Seconds since it was started; 0 for an image that was kept."""
        if self.started is None:
            return 0.0
        return (time.perf_counter() if self.ended is None else self.ended) - self.started

    def remaining(self) -> float:
        """Seconds: at first as estimated, then more and more as the work goes."""
        elapsed, share = self.elapsed(), self.share()
        by_pace = elapsed * (1 - share) / share if share else self.expected
        return share * by_pace + (1 - share) * max(0.0, self.expected - elapsed)


@lru_cache(maxsize=256)
def plan_of(overrides: tuple[str, ...], choice: Choice) -> Plan:
    """What an image costs, whatever its prompt and seed; ValueError if it cannot be drawn."""
    workload = workload_of(overrides, choice)
    check_area(choice.height, choice.width, training_size(workload.model.shape))
    check_workload(workload)
    return plan_run(PlannedRun(workload, 1, scored=False))


class Studio:
    """A model, loaded once, and the images that it has drawn.

    Args:
        overrides: of the configuration, as ``model=folder model.path=DIR``.

    Raises:
        ValueError: a configuration or a model that is wrong.
        FileNotFoundError: no such model.
    """

    def __init__(self, overrides: Sequence[str] = ()) -> None:
        self.overrides = tuple(overrides)
        self.base = configured(self.overrides, DIRECT)
        self.training = training_size(self.base.model.shape)
        self.pipe = self.base.model.load()
        self._kept: OrderedDict[Choice, Drawn] = OrderedDict()
        self._pace: dict[str, float] = {}  # method -> seconds per FLOP
        self._jobs: list[Job] = []
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="drawing")  # torch uses all cores for one image

    def warm_up(self) -> None:
        """Draw an image of the training size in two steps, for the libraries' preparations and a first pace."""
        height, width = self.training
        self.start(Choice("a", 0, height, width, 2, DIRECT)).future.result()

    def close(self) -> None:
        """Stop what is being drawn."""
        for job in list(self._jobs):
            job.stop.set()
        self._worker.shutdown(cancel_futures=True)

    def parts_at(self, height: int, width: int) -> Parts:
        """The parts of ScaleCrafter that its settings have on at this size; ValueError if there are no settings."""
        with SHAPES:
            workload = workload_of(self.overrides, Choice("", 0, height, width, self.base.sampler.steps))
            check_workload(workload)
            return parts_of(settings_of(workload))

    def plan(self, choice: Choice) -> Plan:
        """What an image would cost.

        Raises:
            ValueError: the method or this page cannot draw this size, or there is not enough memory for it.
        """
        with SHAPES:
            plan = plan_of(self.overrides, replace(choice, prompt="", seed=0))
        if plan.memory > device_memory():
            raise ValueError(
                f"an image of {choice.height}x{choice.width} needs about {plan.memory / 1e9:.1f} GB, and this machine "
                f"has {device_memory() / 1e9:.1f} GB: choose a smaller size"
            )
        return plan

    def seconds(self, choice: Choice) -> float:
        """Estimate for an image, from those that were drawn; 0 for one that is kept. Raises as `plan`."""
        plan = self.plan(choice)
        return 0.0 if self.kept(choice) else plan.flops * self._pace.get(choice.method, self._pace.get(DIRECT, 0.0))

    def kept(self, choice: Choice) -> Drawn | None:
        """The image, if it was drawn and is still there."""
        key = self._normal(choice)
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def start(self, choice: Choice, stop: threading.Event | None = None) -> Job:
        """Draw an image when those before it are done. Raises as `plan`."""
        plan, ahead = self.plan(choice), [job for job in self._jobs if not job.future.done()]
        job = Job(choice, plan, self.seconds(choice), stop or threading.Event(), len(ahead))
        if (found := self.kept(choice)) is not None:
            job.future.set_result(found)
        else:
            self._jobs = [*ahead, job]
            job.future = self._worker.submit(self._draw, job)
        return job

    def _draw(self, job: Job) -> Drawn:
        if job.stop.is_set():
            raise Cancelled
        choice, workload = job.choice, job.plan.run.workload
        job.started = time.perf_counter()
        request = Request([choice.prompt], [choice.seed], choice.height, choice.width, workload.sampler)
        try:
            with watched(self.pipe, job.stop.is_set) as job.done, workload.model.decoding(choice.height, choice.width):
                (image,) = workload.method.generate(self.pipe, request)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ValueError(f"out of memory at {choice.height}x{choice.width}: choose a smaller size") from error
        finally:
            job.ended = time.perf_counter()
        drawn = Drawn(image, job.elapsed())
        self._pace[choice.method] = drawn.seconds / job.plan.flops
        self._kept[self._normal(choice)] = drawn
        while len(self._kept) > 1 and sum(each.image.nbytes for each in self._kept.values()) > KEPT_BYTES:
            self._kept.popitem(last=False)
        return drawn

    def _normal(self, choice: Choice) -> Choice:
        """Equal for choices of the same image: parts that are on anyway are not named."""
        if choice.parts is None:
            return choice
        own = choice.method == OURS and choice.parts != self.parts_at(choice.height, choice.width)
        return choice if own else replace(choice, parts=None)
