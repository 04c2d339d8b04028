"""A hub on the loopback: the endpoints of Hugging Face's hub and of ModelScope's, with connections that break."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_LARGE = (".safetensors", ".bin", ".pth", ".h5", ".gguf")
"""Endings of what is in LFS: fetched from elsewhere, stated with its SHA-256."""


@dataclass
class Repository:
    """A model on the hub, and what goes wrong with it."""

    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main", "master", COMMIT)
    refusal: tuple[int, str] | None = None
    """Status and X-Error-Code of all answers to those without the token."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """File -> after how many bytes each of the next answers ends."""
    wrong: dict[str, int] = field(default_factory=dict)
    """File -> how many of the next answers have a byte that is another one."""
    statuses: dict[str, list[int]] = field(default_factory=dict)
    """File, or nothing for what the hub says of all files -> statuses of the next answers."""
    stalls: dict[str, int] = field(default_factory=dict)
    """File -> after how many bytes its next answer waits for the end of the other side."""
    knows_ranges: bool = True
    sends_more: bool = False
    """Whether answers go on after the last byte."""
    states_sums: bool = True


@dataclass
class Hub:
    """The server."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    token: str | None = None
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path, and the range of each request for a file's bytes."""
    foreign_tokens: list[str] = field(default_factory=list)
    """Tokens that were sent to where the bytes of large files lie, which nobody should."""

    is_stalled: threading.Event = field(default_factory=threading.Event)

    def fetched(self) -> list[str]:
        """The files of which bytes were asked for."""
        return [path for _, path, _ in self.requests]


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Run a hub; its `url` ends with no slash."""

    class Handler(_Handler):
        pass

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as cdn,
    ):
        hub = Hub(f"http://127.0.0.1:{server.server_port}")
        Handler.hub, Handler.cdn_port = hub, cdn.server_port
        threads = [
            threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.01}) for each in (server, cdn)
        ]
        for thread in threads:
            thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            cdn.shutdown()
            for thread in threads:
                thread.join()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    cdn_port: int
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), {name: values[0] for name, values in parse_qs(url.query).items()}
        if self.server.server_port == self.cdn_port:  # type: ignore[attr-defined]
            _, name, file = path.split("/", 2)
            self._send_file(name.replace("--", "/"), file, with_body)
        elif path == "/api/models":
            self._send_json([{"id": name} for name in self.hub.repositories])
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|refs)(?:/(.+))?)?", path):
            self._describe(match[1], match[2], match[3] or "main")
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if self._may_read(match[1], match[2]):
                self._resolve(match[1], match[3], with_body)
        elif match := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/(repo|repo/files|revisions)", path):
            self._modelscope(match[1], match[2], query, with_body)
        else:
            self._send(404, b"", {})

    def _may_read(self, name: str, revision: str) -> bool:
        repository = self.hub.repositories.get(name)
        has_token = self.hub.token is not None and self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if repository is None:
            self._send_error(404, "RepoNotFound")
        elif repository.refusal and not has_token:
            self._send_error(*repository.refusal)
        elif revision not in repository.revisions:
            self._send_error(404, "RevisionNotFound")
        else:
            return True
        return False

    def _describe(self, name: str, what: str | None, revision: str) -> None:
        if not self._may_read(name, revision):
            return
        repository = self.hub.repositories[name]
        if repository.statuses.get(""):
            self._send(repository.statuses[""].pop(0), b"", {})
            return
        if what == "refs":
            branches = [{"name": each, "ref": f"refs/heads/{each}", "targetCommit": COMMIT} for each in ("main", "v2")]
            self._send_json({"branches": branches, "tags": [], "converts": []})
            return
        siblings: list[dict[str, Any]] = []
        for path, data in repository.files.items():
            sibling: dict[str, Any] = {"rfilename": path, "size": len(data)}
            if repository.states_sums:
                sibling["blobId"] = git_sha1(data)
            if path.endswith(_LARGE):
                digest = hashlib.sha256(data).hexdigest()
                sibling["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 134}
            siblings.append(sibling)
        self._send_json(
            {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
        )

    def _resolve(self, name: str, file: str, with_body: bool) -> None:
        if file not in self.hub.repositories[name].files:
            self._send_error(404, "EntryNotFound")
        elif file.endswith(_LARGE):
            address = f"http://127.0.0.1:{self.cdn_port}/{name.replace('/', '--')}/{file}"
            self._send(302, b"", {"Location": address, "X-Repo-Commit": COMMIT})
        else:
            self._send_file(name, file, with_body)

    def _modelscope(self, name: str, what: str, query: dict[str, str], with_body: bool) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None or query.get("Revision", "master") not in repository.revisions:
            self._send_json({"Code": 10010205001, "Message": "not found", "Success": False}, 404)
        elif repository.refusal:
            self._send_json({"Code": 10010205002, "Message": "no permission", "Success": False}, 403)
        elif what == "revisions":
            tags = [{"Revision": revision} for revision in repository.revisions]
            self._send_json({"Code": 200, "Success": True, "Data": {"RevisionMap": {"Branches": tags, "Tags": []}}})
        elif what == "repo/files":
            files = [
                {"Path": path, "Size": len(data), "Type": "blob", "Sha256": hashlib.sha256(data).hexdigest()}
                for path, data in repository.files.items()
            ]
            files.append({"Path": "original", "Size": 0, "Type": "tree"})
            self._send_json({"Code": 200, "Success": True, "Data": {"Files": files}})
        else:
            self._send_file(name, query["FilePath"], with_body)

    def _send_file(self, name: str, file: str, with_body: bool) -> None:
        repository = self.hub.repositories[name]
        wanted = self.headers.get("Range")
        self.hub.requests.append((self.command, file, wanted))
        if self.server.server_port == self.cdn_port and "Authorization" in self.headers:  # type: ignore[attr-defined]
            self.hub.foreign_tokens.append(self.headers["Authorization"])
        if repository.statuses.get(file):
            self._send(repository.statuses[file].pop(0), b"", {})
            return
        data = repository.files[file]
        if repository.wrong.get(file, 0) > 0:
            repository.wrong[file] -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        start, status, headers = 0, 200, {}
        if wanted and repository.knows_ranges:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups()  # type: ignore[union-attr]
            start, end = int(first), min(int(last or len(data)), len(data) - 1)
            headers = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
            data, status = data[start : end + 1], 206
        if repository.sends_more:
            data += bytes(100)
        cut = repository.cuts[file].pop(0) if repository.cuts.get(file) else None
        if file in repository.stalls and with_body:
            self._send(status, data, headers, repository.stalls.pop(file), stalls=True)
            return
        self._send(status, data if with_body else b"", headers, cut)

    def _send_json(self, shown: Any, status: int = 200) -> None:
        self._send(status, json.dumps(shown).encode(), {"Content-Type": "application/json"})

    def _send_error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "Content-Type": "application/json"})

    def _send(
        self, status: int, data: bytes, headers: dict[str, str], cut: int | None = None, *, stalls: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[:cut])
        if cut is not None:
            self.close_connection = True
            self.wfile.flush()
            if stalls:
                self.hub.is_stalled.set()
                self.connection.recv(1)  # until the other side is gone
            else:
                self.connection.shutdown(2)
