"""Captions as prompts: without HTML, with single spaces."""

from __future__ import annotations

import html
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

LONGEST = 4096  # bytes; CLIP reads 77 tokens
TAG = re.compile(r"</?[A-Za-z][^<>]*>|<!--.*?-->", re.DOTALL)
# What `clean_caption` may change: markup, any whitespace (as str.split has it) but a single space, a space at an end.
MAY_CHANGE = (
    r"[<&\t-\r\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]|  |^ | $"
)


def clean_caption(text: str) -> str:
    """One caption without tags, entities decoded, whitespace collapsed."""
    return " ".join(html.unescape(TAG.sub(" ", text)).split())


def clean_captions(captions: pa.StringArray) -> pa.StringArray:
    """`clean_caption` of each caption. Most are clean as they are, so only the others pass through Python."""
    dirty = pc.fill_null(pc.match_substring_regex(captions, MAY_CHANGE), False)
    cleaned = [clean_caption(text) for text in captions.filter(dirty).to_pylist()]
    return pc.replace_with_mask(captions, dirty, pa.array(cleaned, pa.string())) if cleaned else captions


def is_utf8(texts: pa.StringArray) -> NDArray[np.bool_]:
    """(N,) whether each text's bytes are UTF-8, which file formats declare and do not check; true for null."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return np.array([decodes(value) for value in texts.cast(pa.binary()).to_pylist()], bool)
    return np.ones(len(texts), bool)


def decodes(value: bytes | None) -> bool:
    try:
        (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
