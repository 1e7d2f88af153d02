"""Formulas of the pages as MathML, which browsers draw without a script."""

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(html: str, **kwargs: Any) -> str:
    """Called by mkdocs with the HTML of each page; ``\\(...\\)`` stands in lines and ``\\[...\\]`` in blocks."""

    def drawn(match: re.Match[str]) -> str:
        formula = unescape(match[3]).strip()
        if match[2] == "(":
            return f"<span>{convert(formula)}</span>"
        return f'<div style="overflow-x: auto">{convert(formula, display="block")}</div>'

    return FORMULA.sub(drawn, html)
