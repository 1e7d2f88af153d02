"""A server on this machine that behaves as the network does: it continues downloads, breaks them off, or errs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Web:
    """Files by path.

    Args:
        ranges: whether requests for a part of a file are answered with it.
        breaks: after how many bytes each of the first answers ends, one for each of them.
        requests: (method, path, Range) of every request so far.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    breaks: list[int] = field(default_factory=list)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def add_repository(self, name: str, folder: Path) -> None:
        """The files of a folder as the hub serves those of a repository; safetensors have a SHA-256."""
        for path in (path for path in folder.rglob("*") if path.is_file()):
            self.files[f"/{name}/resolve/{COMMIT}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()

    def tree(self, name: str) -> list[dict[str, object]]:
        """What the hub says of all files of a repository."""
        found: list[dict[str, object]] = []
        for path, content in self.files.items():
            if path.startswith(f"/{name}/resolve/{COMMIT}/"):
                about = {"type": "file", "path": path.split(f"/{COMMIT}/")[1], "size": len(content)}
                about["oid"] = hashlib.sha1(content).hexdigest()
                if path.endswith(".safetensors"):
                    sha256 = hashlib.sha256(content).hexdigest()
                    about["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 100}
                found.append(about)
        return found


class Handler(BaseHTTPRequestHandler):
    """Answers from the files of ``web``."""

    web: Web

    def log_message(self, *args: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.web.requests.append((self.command, path, self.headers["Range"]))
        if path.startswith("/api/models/"):
            self.answer_api(path.removeprefix("/api/models/"))
        elif path in self.web.files:
            self.answer_file(path, self.web.files[path])
        else:
            self.send_error(404)

    def answer_api(self, path: str) -> None:
        name, _, _ = path.partition("/tree/" if "/tree/" in path else "/revision/")
        known = any(each.startswith(f"/{name}/resolve/") for each in self.web.files)
        body = json.dumps(self.web.tree(name) if "/tree/" in path else {"id": name, "sha": COMMIT, "siblings": []})
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def answer_file(self, path: str, content: bytes) -> None:
        start = int((self.headers["Range"] or "bytes=0-")[6:].partition("-")[0]) if self.web.ranges else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        kind = hashlib.sha256 if path.endswith(".safetensors") else hashlib.sha1
        self.send_header("ETag", f'"{kind(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            end = start + self.web.breaks.pop(0) if self.web.breaks else len(content)
            self.wfile.write(content[start:end])


@contextmanager
def serving(web: Web) -> Iterator[Web]:
    """Serve its files on 127.0.0.1 at ``web.url``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Serving", (Handler,), {"web": web}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    web.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
