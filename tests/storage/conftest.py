"""Servers of three object stores to write to.

Each server is started on a free loopback port when a test first asks for it, and stopped at the
end. The clients are the real ones: s3fs, gcsfs and adlfs.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Request:
    method: str
    path: str
    query: str
    size: int


@dataclass
class Server:
    """An object store on a loopback port, with a bucket named `bucket`.

    `requests` are those since the last `clear()`. While `status` is set, all are answered by it.
    """

    options: dict[str, Any]
    protocol: str
    endpoint: str = ""
    requests: list[Request] = field(default_factory=list)
    status: str | None = None

    def url(self) -> str:
        return f"{self.protocol}://bucket/{uuid.uuid4().hex}"


def _needs(*modules: str) -> list[Any]:
    return [
        pytest.importorskip(module, reason="its server or client is missing") for module in modules
    ]


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[Server]:
    _, server, serving = _needs("s3fs", "moto.server", "werkzeug.serving")
    logging.getLogger("werkzeug").setLevel("ERROR")
    store = server.DomainDispatcherApplication(server.create_backend_app)
    # Without retries of its own the client says at once that a server is away.
    config = {"retries": {"max_attempts": 0}, "connect_timeout": 5}
    options = {"key": "AKIAIOSFODNN7EXAMPLE", "secret": "wJalrXUtnFEMIK7MDENG"}
    found = Server({**options, "config_kwargs": config}, "s3")

    def application(environ: Any, start: Any) -> Any:
        size = int(environ.get("CONTENT_LENGTH") or 0)
        fields = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], size
        found.requests.append(Request(*fields))
        if found.status is not None:
            environ["wsgi.input"].read(size)
            start(found.status, [("Content-Length", "0"), ("Connection", "close")])
            return [b""]
        return store(environ, start)

    listening = serving.make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    found.endpoint = found.options["endpoint_url"] = f"http://127.0.0.1:{listening.port}"
    importlib.import_module("fsspec").filesystem("s3", **found.options).mkdir("bucket")
    yield found
    listening.shutdown()
    listening.server_close()
    thread.join(30)


@pytest.fixture
def s3(_s3_server) -> Iterator[Server]:
    _s3_server.requests.clear()
    yield _s3_server
    _s3_server.status = None


@pytest.fixture(scope="session")
def gs() -> Iterator[Server]:
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # no emulator has it
    _, emulator = _needs("gcsfs", "gcp_storage_emulator.server")
    logging.getLogger("gcp_storage_emulator").setLevel("ERROR")
    running = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    running.start()
    endpoint = f"http://127.0.0.1:{running._api._httpd.server_port}"
    yield Server({"endpoint_url": endpoint, "token": "anon", "project": "test"}, "gs", endpoint)
    running.stop()


_ACCOUNT = "devstoreaccount1"  # every Azure emulator's, and the key is public
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(scope="session")
def abfs() -> Iterator[Server]:
    """Azurite where it is installed; it comes from npm only, so else a stand-in of ours."""
    _needs("adlfs")
    azurite = shutil.which("azurite-blob")
    command = [sys.executable, str(Path(__file__).with_name("blob_server.py"))]
    if azurite is not None:
        command = [azurite, "--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        lines = (re.search(r"listens on (http://[\d.]+:\d+)", line) for line in running.stdout)
        endpoint = next(found[1] for found in lines if found)
        address = f"BlobEndpoint={endpoint}/{_ACCOUNT};AccountName={_ACCOUNT};AccountKey={_KEY};"
        options = {"connection_string": f"DefaultEndpointsProtocol=http;{address}"}
        importlib.import_module("fsspec").filesystem("abfs", **options).mkdir("bucket")
        yield Server(options, "abfs", endpoint)
        running.terminate()


@pytest.fixture(params=["s3", "gs", "abfs"])
def store(request) -> Server:
    return request.getfixturevalue(request.param)
