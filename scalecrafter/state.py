"""What the layers of a U-Net do in one of its calls, and how they know it.

A call announces its state in a context variable, which other threads do not see, by a text, its key. A key means the
same everywhere and for ever, and all that a layer does follows from it: in a compiled graph what is looked up by the
key is constant, and the graph holds as long as the key is the same. So a model is compiled once for each state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch

from scalecrafter.freeu import Amplification
from scalecrafter.redilate import Factor
from scalecrafter.settings import Settings

PLAIN = ""  # the key of the state in which no layer is changed, as outside calls
current: ContextVar[str] = ContextVar("key of the state of the U-Net call", default=PLAIN)


@dataclass(frozen=True)
class State:
    """What the layers do in a call.

    Args:
        factors: of the convolutions that are dilated, by name.
        dispersed: names of those that are dispersed as well.
        dispersed_size, dispersion_eta: of their kernels, see `Settings`.
        freeu: of the resnets that FreeU acts on, by name.
    """

    factors: Mapping[str, Factor] = field(default_factory=dict)
    dispersed: tuple[str, ...] = ()
    dispersed_size: int = 5
    dispersion_eta: float = 0.05
    freeu: Mapping[str, Amplification] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return repr(self) if self.factors or self.freeu else PLAIN


def state_at(settings: Settings, step: int, freeu: Mapping[str, Amplification], *, base_pass: bool = False) -> State:
    """The state at a reference step of the main or the base pass."""
    factors, dispersed = settings.at(step, base_pass=base_pass)
    return State(factors, dispersed, settings.dispersed_size, settings.dispersion_eta, freeu)


known: dict[str, State] = {}


def announce(state: State) -> None:
    """Let the layers be in this state, in this thread, until another one is announced."""
    key = state.key
    known[key] = state
    current.set(key)


@contextmanager
def announced(state: State) -> Iterator[None]:
    """`announce` for a while; outside, layers are plain."""
    announce(state)
    try:
        yield
    finally:
        announce(State())


@torch.compiler.assume_constant_result
def convolution_at(key: str, name: str) -> tuple[Factor, tuple[int, float] | None] | None:
    """Factor, and (size, eta) of the dispersed kernel if there is one, of the convolution ``name`` in a state; None if
    the convolution is plain.
    """
    state = known[key]
    if name not in state.factors:
        return None
    dispersed = (state.dispersed_size, state.dispersion_eta) if name in state.dispersed else None
    return state.factors[name], dispersed


@torch.compiler.assume_constant_result
def resnet_at(key: str, name: str) -> Amplification | None:
    """What FreeU does to the input of the resnet ``name`` in a state, if anything."""
    return known[key].freeu.get(name)
