"""The pages of docs/, and the blocks of code on them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks in one language, in their order."""
    return [code for name, code in BLOCK.findall(text_of(page)) if name == language]


def commands(page: str) -> list[list[str]]:
    """The words of every command in the bash blocks; NAME="..." is for the lines after it."""
    known: dict[str, str] = {}
    found = []
    for line in "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines():
        if match := re.fullmatch(r'([A-Z]+)="(.*)"', line):
            known[match[1]] = match[2]
        elif words := shlex.split(Template(line).substitute(known), comments=True):
            found.append(words)
    return found
