"""docs/failures.md lists every error and warning that the library raises, as it stands in the source, and no other."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def template(message):
    """The text of a message in the source, with … for what is filled in."""
    if isinstance(message, ast.Constant):
        return message.value
    assert isinstance(message, ast.JoinedStr), ast.dump(message)
    return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in message.values)


def messages(source):
    """Of all errors and warnings with a text of their own."""
    for node in ast.walk(ast.parse(source)):
        made = node.exc if isinstance(node, ast.Raise) else node
        warns = isinstance(made, ast.Call) and isinstance(made.func, ast.Attribute) and made.func.attr == "warn"
        if isinstance(made, ast.Call) and (isinstance(node, ast.Raise) or warns):
            yield template(made.args[0])


def test_messages_are_found():
    source = "if x:\n    raise ValueError(f'a {b} ' 'c') from error\nwarnings.warn('d', stacklevel=2)\nraise\nf('e')"
    assert sorted(messages(source)) == ["a … c", "d"]


def test_the_page_lists_every_message():
    raised = {m for path in (ROOT / "scalecrafter").rglob("*.py") for m in messages(path.read_text(encoding="utf-8"))}
    page = (ROOT / "docs/failures.md").read_text(encoding="utf-8").split("## When the method is enabled")[1]
    listed = re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(raised)
