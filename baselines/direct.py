"""Direct inference: the stock pipeline at a size it was not trained for."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from baselines.method import UNetMethod


class Direct(UNetMethod):
    """Leaves the pipeline unchanged."""

    def enable(self, pipe: Any, *, height: int, width: int) -> nullcontext[None]:
        return nullcontext()
