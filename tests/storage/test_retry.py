"""Which errors pass by themselves, and how long to wait for that."""

from __future__ import annotations

import errno

import hypothesis
import hypothesis.strategies as st
import pytest

from jaxlog.storage import Backoff, is_transient


class Answer(Exception):  # noqa: N818  stands for a client's error with a status
    def __init__(self, **fields) -> None:
        super().__init__(str(fields))
        vars(self).update(fields)


class ServiceRequestError(Exception):
    """azure's word for a line that broke."""


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def boto(status: int) -> dict:
    return {"response": {"ResponseMetadata": {"HTTPStatusCode": status}}}


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(), ConnectionResetError(), TimeoutError(), BrokenPipeError(),
        OSError(errno.EIO, "?"), OSError(errno.EHOSTUNREACH, "?"), OSError("no reason given"),
        Answer(status_code=503), Answer(status=500), Answer(code=429), Answer(**boto(503)),
        chained(OSError(errno.EIO, "?"), Answer(**boto(500))), ServiceRequestError("down"),
        chained(Exception("?"), ConnectionResetError()),
    ],
)  # fmt: skip
def test_what_passes(error) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(), FileNotFoundError(), FileExistsError(), NotADirectoryError(),
        OSError(errno.ENOSPC, "full"), OSError(errno.EROFS, "read-only"), OSError(errno.EDQUOT, ""),
        ValueError(), TypeError(), RuntimeError("cannot schedule new futures after shutdown"),
        Answer(status_code=403), Answer(status=404), Answer(code=412), Answer(**boto(400)),
        chained(OSError(errno.EIO, "?"), Answer(**boto(403))), Answer(code="NoSuchBucket"),
    ],
)  # fmt: skip
def test_what_does_not(error) -> None:
    assert not is_transient(error)


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = ValueError(), TypeError()
    first.__cause__, second.__cause__ = second, first
    assert not is_transient(first)


@hypothesis.given(st.floats(0, 1, exclude_max=True), st.integers(1, 2000))
def test_waits_double_and_are_bounded(draw, tries) -> None:
    backoff = Backoff(0.5, 30.0, draw=lambda: draw)
    waits = [backoff.next() for _ in range(tries)]
    fulls = [min(30.0, 0.5 * 2.0 ** min(number, 60)) for number in range(tries)]
    assert all(full / 2 <= wait <= full for wait, full in zip(waits, fulls, strict=True))
    backoff.reset()
    assert backoff.next() <= 0.5
