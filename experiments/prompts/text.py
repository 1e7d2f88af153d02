"""Clean captions: remove HTML tags, decode entities, collapse whitespace."""

from __future__ import annotations

import html
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MAX_CAPTION_BYTES = 4096  # far more than the 77 tokens that CLIP reads
TAG = re.compile(r"</?[A-Za-z][^<>]*>|<!--.*?-->", re.DOTALL)
# Matches every caption that `clean_caption` changes: markup, whitespace (as defined by str.split) other than single
# spaces, and leading or trailing spaces.
NEEDS_CLEANING = (
    r"[<&\t-\r\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]|  |^ | $"
)


def clean_caption(text: str) -> str:
    """Remove tags, decode entities and collapse whitespace."""
    return " ".join(html.unescape(TAG.sub(" ", text)).split())


def clean_captions(captions: pa.StringArray) -> pa.StringArray:
    """Apply `clean_caption` to each caption. Most are clean already; only the others pass through Python."""
    dirty = pc.fill_null(pc.match_substring_regex(captions, NEEDS_CLEANING), False)
    cleaned = [clean_caption(text) for text in captions.filter(dirty).to_pylist()]
    return pc.replace_with_mask(captions, dirty, pa.array(cleaned, pa.string())) if cleaned else captions


def is_utf8(texts: pa.StringArray) -> NDArray[np.bool_]:
    """Whether each text is valid UTF-8 (N,), true for null. File formats declare the encoding but do not check it."""
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
