"""What can be the id and the text of a prompt."""

from __future__ import annotations

import re
from typing import Any

ID = re.compile(r"[A-Za-z0-9_-]{1,128}")  # ids become file names
SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair


def is_text(value: Any) -> bool:
    """Whether it is a string without halves of surrogate pairs, which JSON can hold and UTF-8 cannot."""
    return isinstance(value, str) and not SURROGATE.search(value)
