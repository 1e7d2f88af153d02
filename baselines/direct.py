"""Direct inference: the stock pipeline at a size it was not trained for."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from baselines.method import Calls, Request, UNetMethod


class Direct(UNetMethod):
    """Leaves the pipeline unchanged."""

    def enable(self, pipe: Any, *, height: int, width: int) -> nullcontext[None]:
        return nullcontext()

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """One call of the plain U-Net per step."""
        return [replace(calls, timestep=None) for calls in super().calls(pipe, request)]
