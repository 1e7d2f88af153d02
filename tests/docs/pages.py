"""The pages of docs/ and those at the root, the code on them, and the commands that they tell."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4,}((?:make|python|pip|scalecrafter) .*)$", re.MULTILINE)
INLINE = re.compile(r"`((?:make|python -m|scalecrafter) [^`]+)`")
SIZE = re.compile(r"\b(512|1024|1536|2048|4096)\b")


def text_of(page: str) -> str:
    """Of a page by its path from docs/, or from the root if it begins with a slash."""
    return (ROOT / page[1:] if page.startswith("/") else DOCS / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks in one language, in their order."""
    return [code for name, code in BLOCK.findall(text_of(page)) if name == language]


def commands(page: str) -> list[list[str]]:
    """The words of every command in the bash blocks; NAME="..." is for the lines after it."""
    return words_of("".join(blocks(page, "bash")))


def commands_anywhere(page: str) -> list[list[str]]:
    """Those in bash blocks, then those in indented blocks, and in the text those without an ellipsis."""
    text = text_of(page).replace("\\\n", " ")
    inline = [" ".join(line.split()) for line in INLINE.findall(BLOCK.sub("", text)) if "…" not in line]
    return commands(page) + words_of("\n".join([*INDENTED.findall(text), *inline]))


def words_of(lines: str) -> list[list[str]]:
    """Options in square brackets are among them."""
    known: dict[str, str] = {}
    found = []
    for line in re.sub(r"\[(--[^]]+)\]", r"\1", lines.replace("\\\n", " ")).splitlines():
        if match := re.fullmatch(r'([A-Z]+)="(.*)"', line):
            known[match[1]] = match[2]
        elif words := shlex.split(Template(line).substitute(known), comments=True):
            found.append(words)
    return found


def smaller(text: str) -> str:
    """Sizes of Stable Diffusion as those of the tiny pipeline, and two steps."""
    text = text.replace('"num_inference_steps": 30', '"num_inference_steps": 2')
    return SIZE.sub(lambda match: str(int(match[0]) // 16), text)
