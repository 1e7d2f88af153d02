"""Direct inference: the stock pipeline, asked for a size it was not trained for."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from baselines.method import UNetMethod


class Direct(UNetMethod):
    """Changes nothing."""

    def enable(self, pipe: Any, *, height: int, width: int) -> nullcontext[None]:
        return nullcontext()
