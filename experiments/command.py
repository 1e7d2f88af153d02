"""How commands end: what goes wrong becomes one line on standard error and an exit code, not a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from experiments.config import readable_error

FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's own switch: 1 shows tracebacks


@contextmanager
def one_line_errors(*, traceback: bool | None = None) -> Iterator[None]:
    """Exit 2 with one line for errors that name their remedy, 130 when interrupted; others are bugs and pass."""
    if traceback is None:
        traceback = os.environ.get(FULL_ERROR) == "1"
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted: the same command resumes", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, HydraException, OmegaConfBaseException) as error:
        if traceback:
            raise
        print(f"error: {readable_error(error)}", file=sys.stderr)
        sys.exit(2)


def command(action: Callable[[Sequence[str]], None]) -> None:
    """Run a command with the arguments of the command line."""
    with one_line_errors():
        action(sys.argv[1:])
