"""Which errors of a store are worth another attempt, and how long to wait before it."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Backoff", "StoreAwayError", "is_transient"]

# Transient errors among the OSErrors that have no class of their own. s3fs reports status 500 as
# EREMOTEIO (121).
_TRANSIENT = {
    getattr(errno, name)
    for name in (
        "EAGAIN", "EBUSY", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN",
        "EHOSTUNREACH", "EINTR", "EIO", "ENETDOWN", "ENETRESET", "ENETUNREACH", "EPIPE",
        "EREMOTEIO", "ETIMEDOUT",
    )
    if hasattr(errno, name)
}  # fmt: skip
_REFUSED = (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError)
# Classes of the clients for a broken connection. By name, because the clients are optional.
_BROKEN_LINE = {
    "ClientConnectionError",  # aiohttp
    "ClientPayloadError",
    "ConnectionError",  # botocore, requests
    "HTTPClientError",  # botocore
    "ServiceRequestError",  # azure
    "ServiceResponseError",
    "TransportError",  # google.auth
}
_TRANSIENT_STATUS = {408, 425, 429, *range(500, 600)}


class StoreAwayError(OSError):
    """The store is unreachable; the data is kept and written again later."""


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later, judging by `error` and its causes.

    Example:
        >>> is_transient(TimeoutError()), is_transient(PermissionError()), is_transient(TypeError())
        (True, False, False)
    """
    chain = list(_chain(error))
    statuses = [status for each in chain if (status := _status(each)) is not None]
    if statuses:
        return statuses[0] in _TRANSIENT_STATUS
    if any(isinstance(each, _REFUSED) for each in chain):
        return False
    return any(_is_broken_connection(each) for each in chain)


class Backoff:
    """Exponential backoff with jitter, so that many writers do not retry at the same moment.

    Args:
        first_secs: upper bound of the first wait, in seconds.
        most_secs: upper bound of every wait, in seconds.
        draw: returns a random number in [0, 1).

    Example:
        >>> backoff = Backoff(1.0, 5.0, draw=lambda: 0.0)
        >>> [backoff.next() for _ in range(5)]
        [1.0, 2.0, 4.0, 5.0, 5.0]
    """

    def __init__(
        self,
        first_secs: float = 0.5,
        most_secs: float = 30.0,
        *,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._first, self._most, self._draw = first_secs, most_secs, draw
        self._tries = 0

    def next(self) -> float:
        """Seconds to wait now: at random between half and all of a bound that doubles each time."""
        full = min(self._most, self._first * 2.0 ** min(self._tries, 60))
        self._tries += 1
        return full * (1 - 0.5 * self._draw())

    def reset(self) -> None:
        """Starts again with the first wait, after a success."""
        self._tries = 0


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes; a chain may contain a cycle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status that a client's error carries: azure, aiohttp, gcsfs, botocore."""
    status: Any = getattr(error, "status_code", None) or getattr(error, "status", None)
    status = status or getattr(error, "code", None)
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", status)
    try:
        status = int(status)
    except (TypeError, ValueError):
        return None
    return status if 400 <= status < 600 else None


def _is_broken_connection(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if any(kind.__name__ in _BROKEN_LINE for kind in type(error).__mro__):
        return True
    return isinstance(error, OSError) and (error.errno is None or error.errno in _TRANSIENT)
