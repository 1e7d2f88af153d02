"""The server of the page: what it lets out, where it listens, and what the command says."""

import asyncio
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.commands import ROOT

pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is missing")


def answer(kind, *chunks):
    """(headers, body) that the middleware makes of an answer in chunks."""
    from experiments.demo.serving import OnlyLocal

    async def app(scope, receive, send):
        length = str(sum(map(len, chunks))).encode()
        headers = [(b"content-type", kind), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for index, chunk in enumerate(chunks):
            await send({"type": "http.response.body", "body": chunk, "more_body": index < len(chunks) - 1})

    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(OnlyLocal(app)({"type": "http"}, None, send))
    return dict(sent[0]["headers"]), b"".join(message["body"] for message in sent[1:])


def test_pages_lose_what_is_elsewhere():
    """Whole elements, also where an answer is cut in the middle of one; and the length is right."""
    page = (
        b'<head><link rel="preconnect" href="https://fonts.example" />'
        b'<script src="https://cdn.example/a.js" async></script><script src="./own.js"></script>'
        b'<link rel="stylesheet" href="./own.css"><meta content="https://example.org"></head>'
    )
    own = b'<head><script src="./own.js"></script><link rel="stylesheet" href="./own.css">'
    headers, body = answer(b"text/html; charset=utf-8", page[:30], page[30:])
    assert body == own + b'<meta content="https://example.org"></head>'
    assert headers[b"content-length"] == str(len(body)).encode()
    assert b"default-src 'self'" in headers[b"content-security-policy"]


def test_other_answers_pass_as_they_are():
    script = b"x = '<script src=\"https://cdn.example/a.js\"></script>'"
    headers, body = answer(b"text/javascript", script[:9], script[9:])
    assert body == script
    assert headers[b"content-length"] == str(len(script)).encode()


def test_help_needs_no_model():
    command = [sys.executable, "-X", "importtime", "-m", "experiments.demo", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "this machine alone" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not {"torch", "gradio", "hydra"} & imported


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["model=folder", "model.path=/nowhere"], "no pipeline folder at /nowhere"),
        (["model=nothing"], "In 'config': Could not find 'model/nothing'"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(arguments, sentence, monkeypatch):
    from experiments.demo import __main__ as demo

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # which the command sets
    with pytest.raises((ValueError, OSError), match=re.escape(sentence)):
        demo.main(arguments)


def test_without_gradio_the_command_says_what_to_install(monkeypatch):
    from experiments.demo import __main__ as demo

    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in ("serving", "page"):
        monkeypatch.delitem(sys.modules, f"experiments.demo.{name}", raising=False)
    with pytest.raises(ValueError, match="the page needs gradio: make demo installs it"):
        demo.main([])
