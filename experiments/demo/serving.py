"""Serving the page, to this machine alone unless told otherwise, and with nothing in it that asks another machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from experiments.demo.page import CSS, build_page
from experiments.demo.studio import Studio

# Gradio's own page asks for fonts and a script of other machines.
ELSEWHERE = re.compile(rb'<(link|script)\b[^>]*\b(?:href|src)="https?://[^>]*>(?:\s*</\1>)?')
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; frame-ancestors 'self'"


class OnlyLocal:
    """ASGI middleware: takes what is ELSEWHERE out of pages, and forbids browsers to ask for anything else."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start: dict[str, Any] = {}
        body = b""

        async def changed(message: dict[str, Any]) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"content-security-policy", POLICY.encode())]
                start = message | {"headers": headers}
                if not is_page(headers):
                    await send(start)
            elif not is_page(start["headers"]):
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body"):
                    text = ELSEWHERE.sub(b"", body)
                    kept = [pair for pair in start["headers"] if pair[0] != b"content-length"]
                    await send(start | {"headers": [*kept, (b"content-length", str(len(text)).encode())]})
                    await send(message | {"body": text})

        await self.app(scope, receive, changed)


def is_page(headers: Any) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/html") for name, value in headers)


def theme() -> gr.themes.Base:
    """Gradio's own with the system's fonts, and colours of more contrast: 4.5 to 1 and above."""
    own = gr.themes.Default(
        primary_hue="blue", font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
    )
    return own.set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
    )


@contextmanager
def serve(overrides: Sequence[str], host: str, port: int | None) -> Iterator[str]:
    """The address of the page, which is served in another thread.

    Args:
        overrides: of the configuration.
        host: address to listen on.
        port: None: the first free one from 7860 on.

    Raises:
        ValueError, FileNotFoundError: as `Studio`.
        OSError: the port is taken.
    """
    with closing(Studio(overrides)) as studio:
        studio.warm_up()
        page = build_page(studio)
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            theme=theme(),
            css=CSS,
            footer_links=[],
            app_kwargs={"middleware": [Middleware(OnlyLocal)]},
        )
        try:
            yield url.rstrip("/")
        finally:
            page.close(verbose=False)
