"""Writes what open loggers hold when the interpreter exits or the process gets SIGTERM."""

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
_SIGTERM_TIMEOUT_SECS = 10.0  # schedulers often send SIGKILL 30 s after SIGTERM


class _Closable(Protocol):
    def flush(self, timeout: float | None = None) -> None: ...
    def close(self, timeout: float | None = None) -> None: ...


# Weak: a registration must not keep a logger alive. A writer with a thread is alive anyway, because
# the thread holds it.
_open: weakref.WeakSet[_Closable] = weakref.WeakSet()
_at_sigterm: weakref.WeakSet[_Closable] = weakref.WeakSet()
_before: Any = None  # the previous handler of SIGTERM, which ours calls


def close_at_exit(closable: _Closable) -> None:
    """Closes `closable` at interpreter exit, if it still exists then.

    Example:
        >>> class Door:
        ...     def flush(self, timeout=None): ...
        ...     def close(self, timeout=None): ...
        >>> close_at_exit(Door())
    """
    _register()
    _open.add(closable)


def close_at_sigterm(closable: _Closable) -> None:
    """Flushes `closable` on SIGTERM, then does what SIGTERM did before.

    Raises:
        LoggerError: called outside the main thread; Python sets signal handlers only there.

    Example:
        >>> class Door:
        ...     def flush(self, timeout=None): ...
        ...     def close(self, timeout=None): ...
        >>> before = signal.getsignal(signal.SIGTERM)
        >>> close_at_sigterm(Door())
        >>> _ = signal.signal(signal.SIGTERM, before)
    """
    global _before  # noqa: PLW0603  a process has one handler
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
        # flush, not close: the signal may have interrupted code in this thread that holds the
        # writer's lock. The lock is reentrant, and flush releases it fully while it waits; close
        # joins the writer's thread, which would wait for the lock for ever.
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
        # Without a traceback: it would show only the exit machinery and hide the message.
        log = logging.getLogger("jaxlog")
        log.error("%s, %s; call close() before the end", when, error)  # noqa: TRY400


_registered = False


def _register() -> None:
    """Registers `_close_all`, to run at the latest moment at which async clients still work.

    `atexit` is too late: by then `concurrent.futures` accepts no work, and asyncio needs it to
    resolve host names. `concurrent.futures` registers its own end with
    `threading._register_atexit`, whose hooks run in reverse order. Ours is registered there too,
    after the filesystem was made, so it runs before. A Python without that private hook gets
    `atexit`.
    """
    global _registered  # noqa: PLW0603
    if not _registered:
        _registered = True
        getattr(threading, "_register_atexit", atexit.register)(_close_all)
