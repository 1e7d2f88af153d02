"""Seeded hostile inputs, and what every surface owes them: one line, and nothing written where it must not be."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

QUICK, THOROUGH = 60, 600  # inputs of a surface, by default and in the slow tests
BOTH = [QUICK, pytest.param(THOROUGH, marks=pytest.mark.slow)]

PIECES = [
    *("\x00", "\x07\x1b[31m", "\x7f", "\r", "\n", "\t", "\x0b\x0c\x1c\x85", "\u2028\u2029"),  # controls, line ends
    *("\u202eevil\u202c", "\u200f\u200e", "\u2066", "\ufeff", "\ufffe", "\u0301" * 50),  # marks that reorder or stack
    *(
        "\U0001f9d9\u200d\u2640\ufe0f",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u05e9\u05dc\u05d5\u05dd",
        "\ua9c5",
    ),
    *("../../up", "/etc/passwd", "..\\up", "~", ".", "..", "C:\\x", "CON", "a/b", "-rf"),
    *("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1:A9)", '",x\n', "\t;", '"'),  # spreadsheets
    *("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "<!--", "&lt;", "{{ 7 * 7 }}", "{% raw %}"),
    *("\\input{/etc/passwd}", "$x^2$", "$\\foo$", "50% & more_", "#1", "{", "}", "~^", "\\", "\\\\ \\hline"),
    *("| a | b |", "`x`", "[a](javascript:alert(1))", "# a", "${oc.env:HOME}", "${now:%Y}", "%s %n", "null", "0"),
    *("a", "a red mushroom", "\u00e9t\u00e9", "1e999", "nan", "-1", "true"),
]
LONG = "long words " * 9_000  # 100 kB


def text(random: Random, long: bool = True) -> str:
    """Up to four pieces and random characters; rarely 100 kB."""
    if long and random.random() < 0.02:
        return LONG
    drawn = [random.choice(PIECES) for _ in range(random.randint(1, 3))]
    if random.random() < 0.3:
        drawn.append("".join(chr(random.choice((random.randrange(32), random.randrange(0xD7FF)))) for _ in range(4)))
    return random.choice(("", " ")).join(drawn)


def damaged(random: Random, content: bytes) -> bytes:
    """Truncated, with flipped bits, or with a part that is gone, repeated, or random."""
    start, length = random.randrange(len(content)), random.choice((1, 4, 64))
    kind = random.randrange(5)
    if kind == 0:
        return content[:start]
    if kind == 1:
        changed = bytearray(content)
        for _ in range(random.randint(1, 3)):
            changed[random.randrange(len(content))] ^= 1 << random.randrange(8)
        return bytes(changed)
    middle = {2: b"", 3: content[start : start + length] * 2, 4: random.randbytes(length)}[kind]
    return content[:start] + middle + content[start + length :]


def require_one_line(error: BaseException) -> None:
    """A kind that commands turn into one line, with something to say."""
    assert isinstance(error, (ValueError, OSError)), f"{type(error).__name__}: {error}"
    assert str(error).strip()


def error_of(action: Callable[[], object]) -> Exception | None:
    """What an action fails with, if it does, which has to be in the way that a command may."""
    try:
        action()
    except Exception as error:
        require_one_line(error)
        return error
    return None


EVENTS = {"open": 0, "os.mkdir": 0, "os.rename": 1, "os.remove": 0, "os.rmdir": 0, "os.link": 1, "os.symlink": 1}
watchers: list[list[str]] = []


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook: what is opened for writing, made, renamed or removed, while somebody wants to know."""
    if not watchers or event not in EVENTS:
        return
    if event == "open":
        path, mode, flags = arguments
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            return
    path = arguments[EVENTS[event]]
    if isinstance(path, (str, bytes, Path)):
        for found in watchers:
            found.append(os.path.abspath(os.fsdecode(path)))


@contextmanager
def writes_only(*folders: Path) -> Iterator[None]:
    """AssertionError if anything outside these folders is written, and not as `os.devnull`."""
    if watch not in installed:
        sys.addaudithook(watch)
        installed.append(watch)
    found: list[str] = []
    watchers.append(found)
    try:
        yield
    finally:
        watchers.remove(found)
    allowed = [os.path.abspath(folder) for folder in folders]
    outside = [path for path in found if path != os.devnull and not within(path, allowed)]
    assert outside == []


installed: list[object] = []


def within(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder + os.sep) for folder in folders)
