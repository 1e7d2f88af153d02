"""What the methods of this folder share: a hook at the U-Net's root reads the timestep of each call, and layers look
up what they do in it.

What a call does is kept for its thread and until it ends, also by an error: layers outside a call, and calls in other
threads, work as before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor, nn

from baselines.method import Calls, Request, UNetMethod
from scalecrafter.batch import sample_and_timestep
from scalecrafter.enable import check_pipeline
from scalecrafter.guidance import Caller, caller_of
from scalecrafter.handle import check_no_checkpoints, shown
from scalecrafter.pipeline import sampling_timesteps, vae_scale_factor
from scalecrafter.schedule import reference_step, timestep_value, train_timesteps, training_timestep

BLOCKS = {"DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}
RESIDUALS = (
    "down_block_additional_residuals",
    "mid_block_additional_residual",
    "down_intrablock_additional_residuals",
)
FORWARDED = 32  # no side of a latent is a multiple of 2 to the power of this


@dataclass(frozen=True)
class Moment:
    """A timestep of the training schedule, and the schedule's length T."""

    timestep: float
    train_timesteps: int = 1000

    @property
    def step(self) -> int:
        """The step index of 50, 0 at pure noise, by which the papers state their windows."""
        return reference_step(self.timestep, self.train_timesteps)


def moment_of(scheduler: Any, timestep: Tensor | float) -> Moment:
    """The moment of a U-Net call with what ``scheduler`` passes as its timestep."""
    return Moment(training_timestep(scheduler, timestep_value(timestep)), train_timesteps(scheduler))


class Plan(Protocol):
    """What a method does at one size."""

    @property
    def resizes(self) -> bool:
        """Whether feature maps change their size, so that residuals of other networks do not fit."""
        ...

    def at(self, moment: Moment) -> Hashable | None:
        """What a call does; None: nothing that layers have to know."""
        ...

    def kind(self, moment: Moment) -> Hashable:
        """Equal for calls of equal cost."""
        ...

    def describe(self) -> dict[str, Any]:
        """What affects pixels, as plain values."""
        ...

    def attach(self, unet: Any, now: Now, changes: ExitStack) -> None:
        """Let layers follow ``now``; ``changes`` undoes it."""
        ...


@dataclass(frozen=True)
class Call:
    """One call of the U-Net.

    Args:
        moment: of the call.
        does: what the plan does in it.
        caller: who calls.
        seen: what layers note for later ones.
    """

    moment: Moment
    does: Any
    caller: Caller
    seen: dict[Any, Any] = field(default_factory=dict)


class Now(threading.local):
    """The call that this thread is in."""

    call: Call | None = None

    @property
    def active(self) -> Call | None:
        """The call, if the method does something in it."""
        return self.call if self.call is not None and self.call.does is not None else None


class OnePass(UNetMethod):
    """A method that is a `Plan` for each size."""

    def plan(self, pipe: Any, height: int, width: int) -> Plan | None:
        """What is done at this size in pixels; None: nothing, the method is direct inference there.

        Raises:
            ValueError: the method is not defined for this U-Net, or an option does not fit it.
        """
        raise NotImplementedError

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        """What the method does at this size; options without effect there are left out."""
        found, plan = super().describe(pipe, height, width), self.plan(pipe, height, width)
        return found if plan is None else found | plan.describe()

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """One kind for all steps of equal cost."""
        (at_full_size,) = super().calls(pipe, request)
        plan = self.plan(pipe, request.height, request.width)
        kinds: dict[Hashable, list[float]] = {}
        for timestep in sampling_timesteps(pipe, request.sampler.steps):
            kind = None if plan is None else plan.kind(moment_of(pipe.scheduler, timestep))
            kinds.setdefault(kind, []).append(timestep)
        return [replace(at_full_size, times=len(alike), timestep=alike[0]) for alike in kinds.values()]

    @contextmanager
    def enable(self, pipe: Any, *, height: int, width: int) -> Iterator[None]:
        check_pipeline(pipe, height, width)
        plan = self.plan(pipe, height, width)
        with ExitStack() as changes:
            if plan is not None:
                now = changes.enter_context(followed_calls(pipe, plan, (height, width)))
                plan.attach(pipe.unet, now, changes)
            yield


@contextmanager
def followed_calls(pipe: Any, plan: Plan, size: tuple[int, int]) -> Iterator[Now]:
    """Keep the call that each thread is in, for calls at ``size`` in pixels; others raise."""
    now, factor = Now(), vae_scale_factor(pipe)

    def before(unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        now.call = None
        check_no_checkpoints(unet)
        sample, timestep = sample_and_timestep(args, kwargs)
        rows, columns = sample.shape[-2:]
        called = rows * factor, columns * factor
        if called != size:
            raise ValueError(
                f"the method is enabled for {shown(size)} (height x width), and the pipeline was called at "
                f"{shown(called)}: call it at that size"
            )
        caller = caller_of(unet, pipe)
        moment = moment_of(caller.pipe.scheduler, timestep)
        does = plan.at(moment)
        if plan.resizes and does is not None and any(kwargs.get(name) is not None for name in RESIDUALS):
            raise ValueError(
                "the method changes the sizes of feature maps, which residuals of a ControlNet or T2I-Adapter do not "
                "fit: use the pipeline without them, or another method"
            )
        now.call = Call(moment, does, caller)

    def after(unet: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        now.call = None

    hooks = [
        pipe.unet.register_forward_pre_hook(before, with_kwargs=True),
        pipe.unet.register_forward_hook(after, always_call=True),
    ]
    try:
        yield now
    finally:
        for hook in hooks:
            hook.remove()


def check_blocks(unet: Any, method: str, levels: tuple[int, ...] = ()) -> int:
    """The number of levels of an image U-Net of stock blocks; ValueError for another kind, or number if given."""
    blocks = [*getattr(unet, "down_blocks", ()), *getattr(unet, "up_blocks", ())]
    others = sorted({type(block).__name__ for block in blocks} - BLOCKS)
    if type(unet).__name__ != "UNet2DConditionModel" or others:
        found = f"a {type(unet).__name__}" + (f" with {', '.join(others)}" if others else "")
        raise ValueError(
            f"{method} needs the image U-Net of Stable Diffusion 1.x, 2.x or SDXL, made of "
            f"{', '.join(sorted(BLOCKS))}; this pipeline has {found}"
        )
    if levels and len(unet.down_blocks) not in levels:
        raise ValueError(
            f"{method} needs a U-Net of {' or '.join(map(str, levels))} levels (SD 1.x and 2.x have 4, SDXL 3), for "
            f"which its authors say which layers to change; this one has {len(unet.down_blocks)}"
        )
    return len(unet.down_blocks)


def pair(block: Any, index: int) -> Any:
    """The last module of a block's resnet and, if it has any, attention number ``index``."""
    attentions = getattr(block, "attentions", None)
    return block.resnets[index] if attentions is None else attentions[index]


def on_output(module: nn.Module, change: Callable[[Tensor], Tensor], changes: ExitStack) -> None:
    """Change the feature map that a resnet or an attention returns, until ``changes`` is closed."""

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    changes.callback(module.register_forward_hook(hook).remove)
