"""How a command line ends. Imports nothing, so that a command that needs no model does not load one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence


def command(action: Callable[[Sequence[str]], None]) -> None:
    """Run a command with the overrides of the command line; what goes wrong becomes one line and exit code 2."""
    try:
        action(sys.argv[1:])
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
