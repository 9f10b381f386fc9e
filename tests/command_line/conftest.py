"""Places to write to: a local directory and fsspec's memory."""

from __future__ import annotations

import uuid

import pytest


@pytest.fixture
def memory_url() -> str:
    return f"memory://{uuid.uuid4().hex}"  # the store is one a process: every test has its corner


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path, memory_url) -> str:
    return str(tmp_path) if request.param == "local" else memory_url
