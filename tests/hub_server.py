"""A Hub of one's own on this machine: the part of the Hugging Face Hub's protocol that loading and uploading use."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_" + "a" * 34


class Hub:
    """Repositories in memory.

    Attributes:
        url: of the server.
        repos: name -> commit -> file -> content.
        gated: repositories that need an admission.
        asked: method and path of every request.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        """Adds a commit and returns it."""
        before = list(self.repos.setdefault(name, {}).values())
        files = {**(before[-1] if before else {}), **files}
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.repos[name][commit] = files
        return commit


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """Serves a Hub until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.file(body=False)

        def do_GET(self) -> None:
            if "/resolve/" in self.path:
                self.file(body=True)
            else:
                self.answer(404, {"error": "not here"})

        def file(self, body: bool) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            name, _, rest = self.path.strip("/").partition("/resolve/")
            revision, _, file = rest.partition("/")
            if name in hub.gated:
                return self.answer(403, {}, {"X-Error-Code": "GatedRepo"})
            if name not in hub.repos:
                return self.answer(401, {}, {"X-Error-Code": "RepoNotFound"})
            if revision not in hub.repos[name]:
                return self.answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
            content = hub.repos[name][revision].get(file)
            if content is None:
                return self.answer(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": revision})
            headers = {"X-Repo-Commit": revision, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            return self.answer(200, content, headers, body)

        def do_POST(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == "/api/validate-yaml":
                return self.answer(200, {"errors": [], "warnings": []})
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.answer(401, {"error": "Invalid username or password."})
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
                fresh = name not in hub.repos
                hub.repos.setdefault(name, {})
                return self.answer(200 if fresh else 409, {"url": f"{hub.url}/{name}", "name": name})
            name = self.path.removeprefix("/api/models/").partition("/preupload/")[0].partition("/commit/")[0]
            if "/preupload/" in self.path:
                files = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
                return self.answer(200, {"files": files})
            lines = [json.loads(line) for line in body.splitlines()]
            added = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            commit = hub.commit(name, added)
            return self.answer(200, {"commitUrl": f"{hub.url}/{name}/commit/{commit}", "commitOid": commit})

        def answer(
            self, status: int, content: object, headers: dict[str, str] | None = None, body: bool = True
        ) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body and self.command != "HEAD":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
