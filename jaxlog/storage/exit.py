"""What was logged and not closed is still written when the interpreter or the process ends."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import weakref
from typing import Any, Protocol

from jaxlog.errors import LoggerError

__all__ = ["close_at_exit", "close_at_sigterm"]

_EXIT_TIMEOUT_SECS = 30.0
_SIGTERM_TIMEOUT_SECS = 10.0  # who sends it often sends SIGKILL half a minute later


class _Closable(Protocol):
    def flush(self, timeout: float | None = None) -> None: ...
    def close(self, timeout: float | None = None) -> None: ...


_open: weakref.WeakSet[_Closable] = weakref.WeakSet()
_at_sigterm: weakref.WeakSet[_Closable] = weakref.WeakSet()
_before: Any = None  # the handler that SIGTERM had before ours


def close_at_exit(closable: _Closable) -> None:
    """Closes `closable` at interpreter exit, if it still lives then.

    Example:
        >>> class Door:
        ...     def flush(self, timeout=None): ...
        ...     def close(self, timeout=None): ...
        >>> close_at_exit(Door())
    """
    _register()
    _open.add(closable)


def close_at_sigterm(closable: _Closable) -> None:
    """Flushes `closable` on SIGTERM, before what SIGTERM does otherwise.

    Python takes handlers from the main thread only; elsewhere this raises.

    Raises:
        LoggerError: called by another thread.

    Example:
        >>> class Door:
        ...     def flush(self, timeout=None): ...
        ...     def close(self, timeout=None): ...
        >>> before = signal.getsignal(signal.SIGTERM)
        >>> close_at_sigterm(Door())
        >>> _ = signal.signal(signal.SIGTERM, before)
    """
    global _before  # noqa: PLW0603  there is one handler a process
    try:
        current = signal.getsignal(signal.SIGTERM)
        if current is not _on_sigterm:
            _before = signal.signal(signal.SIGTERM, _on_sigterm)
    except ValueError as error:
        raise LoggerError(
            "flush_on_sigterm=True needs the main thread, which alone may set a signal's handler; "
            "log once from there first"
        ) from error
    _at_sigterm.add(closable)


def _on_sigterm(number: int, frame: Any) -> None:
    for closable in list(_at_sigterm):
        # flush and not close: it lets go of its lock while it waits, which the code that the
        # signal interrupted may hold.
        _report(lambda each=closable: each.flush(_SIGTERM_TIMEOUT_SECS), "at SIGTERM")
    if callable(_before):
        _before(number, frame)
    elif _before != signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _close_all() -> None:
    for closable in list(_open):
        _report(lambda each=closable: each.close(_EXIT_TIMEOUT_SECS), "at exit")


def _report(effect: Any, when: str) -> None:
    try:
        effect()
    except LoggerError as error:
        # The message says it all; a traceback through the end would only bury it.
        log = logging.getLogger("jaxlog")
        log.error("%s, %s; call close() before the end", when, error)  # noqa: TRY400


_registered = False


def _register() -> None:
    """Arranges for `_close_all`, as late as can be that async clients still work.

    `atexit` is too late: by then `concurrent.futures` takes no work, and asyncio resolves names
    with it. Its own hook is run by `threading`, the last registered first; so ours is registered
    there, after the filesystem was made. A Python without that hook gets `atexit`.
    """
    global _registered  # noqa: PLW0603
    if not _registered:
        _registered = True
        getattr(threading, "_register_atexit", atexit.register)(_close_all)
