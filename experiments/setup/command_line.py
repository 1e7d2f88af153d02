"""How a command ends. Imports no model library, so that a command that needs no model does not load one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from experiments.setup.stopping import Stopped, stoppable


def command(action: Callable[[Sequence[str]], object]) -> None:
    """Run a command with the arguments of the command line. An expected error is one line and exit code 2; so is
    SIGTERM or SIGINT, with exit code 128 and the signal's number.
    """
    try:
        with stoppable():
            action(sys.argv[1:])
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.number)
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


def one_line(error: Exception, longest: int = 4000) -> str:
    """The message without line ends and what a terminal would obey; its middle is left out if it is longer."""
    text = " ".join(str(error).split())
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return shown if len(shown) <= longest else f"{shown[: longest // 2]} ... {shown[-longest // 2 :]}"


def overrides_of(arguments: Sequence[str], name: str, description: str) -> list[str]:
    """The overrides of a command that takes nothing else; prints ``description`` and ends for ``--help``.

    Raises:
        ValueError: an option that does not exist.
    """
    if {"-h", "--help"} & set(arguments):
        print(f"usage: python -m {name} [experiment=NAME] [OVERRIDE ...]\n\n{description}\n")
        print("Overrides are those of python -m experiments.run --help, which lists the configuration groups.")
        sys.exit(0)
    for argument in arguments:
        if argument.startswith("-"):
            raise ValueError(f"{name} has no option {argument}: it takes overrides, as experiment=table1")
    return list(arguments)
