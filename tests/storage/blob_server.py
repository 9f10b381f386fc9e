"""As much of Azure's Blob service as adlfs asks of it, in memory; prints where it listens.

A stand-in for azurite, which no Python package index has. It checks no signature.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.server
import threading
import urllib.parse
import xml.sax.saxutils

BLOBS: dict[str, bytes] = {}  # by container/name
CONTAINERS: set[str] = set()
LOCK = threading.Lock()
TIME = email.utils.formatdate(0, usegmt=True)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its base's name
        """Nothing: the tests' output is theirs."""

    def handle_one(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        query = {k: v[0] for k, v in urllib.parse.parse_qs(parts.query).items()}
        path = urllib.parse.unquote(parts.path).lstrip("/").partition("/")[2]  # less the account
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with LOCK:
            if query.get("restype") == "container" or "/" not in path:
                self.container(path.strip("/"), query)
            else:
                self.blob(path, query, body)

    def __getattr__(self, name: str) -> object:
        if name in {"do_GET", "do_PUT", "do_HEAD", "do_DELETE"}:
            return self.handle_one
        raise AttributeError(name)

    def container(self, name: str, query: dict[str, str]) -> None:
        if self.command == "PUT":
            CONTAINERS.add(name)
            self.answer(201)
        elif name not in CONTAINERS and name:
            self.fail(404, "ContainerNotFound")
        elif query.get("comp") == "list" and name:
            self.list_blobs(name, query)
        elif query.get("comp") == "list":
            found = "".join(f"<Container><Name>{each}</Name></Container>" for each in CONTAINERS)
            self.listing("", f"<Containers>{found}</Containers>")
        else:
            self.answer(200)

    def list_blobs(self, container: str, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        folders, files = set(), []
        for key in sorted(BLOBS):
            home, _, name = key.partition("/")
            if home != container or not name.startswith(prefix):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                files.append(name)
        blobs = "".join(
            f"<Blob><Name>{_text(name)}</Name><Properties><Last-Modified>{TIME}</Last-Modified>"
            f"<Etag>0x1</Etag><Content-Length>{len(BLOBS[f'{container}/{name}'])}</Content-Length>"
            f"<BlobType>BlockBlob</BlobType></Properties></Blob>"
            for name in files
        )
        below = "".join(
            f"<BlobPrefix><Name>{_text(n)}</Name></BlobPrefix>" for n in sorted(folders)
        )
        self.listing(f' ContainerName="{container}"', f"<Blobs>{blobs}{below}</Blobs>")

    def listing(self, attributes: str, content: str) -> None:
        text = f"<EnumerationResults{attributes}>{content}<NextMarker /></EnumerationResults>"
        head = '<?xml version="1.0" encoding="utf-8"?>'
        self.answer(200, f"{head}{text}".encode(), {"Content-Type": "application/xml"})

    def blob(self, key: str, query: dict[str, str], body: bytes) -> None:
        if key.partition("/")[0] not in CONTAINERS:
            self.fail(404, "ContainerNotFound")
        elif self.command == "PUT" and not query.get("comp"):
            BLOBS[key] = body
            self.answer(201, headers=_properties(body))
        elif key not in BLOBS:
            self.fail(404, "BlobNotFound")
        elif self.command == "DELETE":
            del BLOBS[key]
            self.answer(202)
        elif self.command in {"GET", "HEAD"}:
            self.read(BLOBS[key])
        else:
            self.fail(501, "NotImplemented")

    def read(self, content: bytes) -> None:
        asked = self.headers.get("x-ms-range") or self.headers.get("Range")
        if asked is None:
            self.answer(200, content, _properties(content))
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start = int(first)
        if start >= len(content):
            self.fail(416, "InvalidRange")
            return
        stop = min(len(content), int(last) + 1 if last else len(content))
        of = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        self.answer(206, content[start:stop], _properties(content) | of)

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("x-ms-version", "2021-12-02")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, status: int, code: str) -> None:
        self.answer(
            status,
            f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode(),
            {"x-ms-error-code": code, "Content-Type": "application/xml"},
        )


def _properties(content: bytes) -> dict[str, str]:
    tag = hashlib.sha256(content).hexdigest()[:16]
    return {"ETag": f'"{tag}"', "Last-Modified": TIME, "x-ms-blob-type": "BlockBlob"}


def _text(name: str) -> str:
    return xml.sax.saxutils.escape(name)


if __name__ == "__main__":
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        print(f"listens on http://127.0.0.1:{server.server_port}", flush=True)  # noqa: T201
        server.serve_forever()
