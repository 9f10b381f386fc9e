"""What has to be set before anything imports jax, hypothesis' profiles, and places to write to."""

from __future__ import annotations

import os
import pathlib
import uuid

# Read once, when jax starts its backend: so they stand above every other import. An environment
# that says otherwise (an accelerator, another number of devices) is left alone.
_FLAG = "--xla_force_host_platform_device_count"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")  # no test opens a window

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# No deadline: the first example of a property compiles. In CI the examples are the same every time.
hypothesis.settings.register_profile("dev", deadline=None, max_examples=25)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes the tests of one file, which share compiled programs, share one."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path.name)))


@pytest.fixture
def memory_url() -> str:
    return f"memory://{uuid.uuid4().hex}"  # the store is one a process: every test has its corner


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path, memory_url: str) -> str:
    """A folder that a test may write to, on a local disk and in fsspec's memory."""
    return str(tmp_path) if request.param == "local" else memory_url
