"""What was logged and not closed is still written when the interpreter exits."""

from __future__ import annotations

import atexit
import logging
import weakref
from typing import Protocol

from jaxlog.errors import LoggerError

__all__ = ["close_at_exit"]

_EXIT_TIMEOUT_SECS = 30.0


class _Closable(Protocol):
    def close(self, timeout: float | None = None) -> None: ...


_open: weakref.WeakSet[_Closable] = weakref.WeakSet()


def close_at_exit(closable: _Closable) -> None:
    """Closes `closable` at interpreter exit, if it still lives then.

    This saves files on a local disk. The clients of object stores may have stopped by then, which
    is reported; only `close()`, or a `with` block, is sure to save there.

    Example:
        >>> class Door:
        ...     def close(self, timeout=None): ...
        >>> close_at_exit(Door())
    """
    _open.add(closable)


@atexit.register
def _close_all() -> None:
    for closable in list(_open):
        try:
            closable.close(_EXIT_TIMEOUT_SECS)
        except LoggerError as error:
            # The message says it all; a traceback through atexit would only bury it.
            log = logging.getLogger("jaxlog")
            log.error("at exit, %s; call close() before the end", error)  # noqa: TRY400
