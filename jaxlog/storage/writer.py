"""`BackgroundWriter`: one thread that writes what a logger was given, and never hides a failure.

The caller appends a reference to a queue and returns. The thread takes the queue, passes it to the
sink and flushes the sink. If storage fails, the caller gets an error at its next call and loses no
data: what could not be written stays in memory and is written again later.

Read `_due_at` first: it alone decides when the thread acts. `_turn` is one round of the thread.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from jaxlog.errors import LoggerError, WriteError
from jaxlog.storage.exit import close_at_exit
from jaxlog.storage.pending import Pending
from jaxlog.storage.retry import StoreAwayError
from jaxlog.storage.secrets import Secrets
from jaxlog.storage.sink import Sink
from jaxlog.storage.uploads import SpooledError

__all__ = ["BackgroundWriter", "OnFull"]

OnFull: TypeAlias = Literal["block", "drop_oldest"]

_RETRY_SECS = 1.0  # wait before the next attempt if the sink gives no time
_GATHER_SECS = 0.1  # least time between two writes that no caller waits for
# Shortest and longest sleep of a thread without work. The upper bound keeps the argument of
# Condition.wait finite: it raises OverflowError for flush_secs=inf.
_IDLE_SECS = (1.0, 3600.0)
_NOW, _NEVER = float("-inf"), float("inf")  # times
_ALIVE_CHECK_SECS = 1.0  # how often a waiting caller checks that the thread is alive


class BackgroundWriter:
    """Writes to `sink` from one daemon thread, started by the first write.

    It writes when `max_queue` rows wait (at most ten times a second), when the oldest row has
    waited `flush_secs`, and at every `flush`. An error of the sink is raised once, as `WriteError`,
    by the next `write`, `flush` or `close`; a `write` that raises has queued nothing. A store that
    is unreachable for a while is not an error: the sink says when it wants to try again, and a
    flush waits as long. A writer that was not closed is closed when the interpreter exits.

    The law of waiting rows: once `max_queue` rows wait, all of them are on storage after 0.1 s (or
    the sink's `min_interval_secs`, if longer) and the duration of at most two writes (one that was
    under way when they came, and their own), however calls and writes interleave. Two states
    suspend it: an error that the caller has not seen yet, and a store that is unreachable.

    The law holds because the time at which the next write is due (`_due_at`) is a function of the
    state under the lock alone. The thread computes it immediately before each sleep, without
    releasing the lock in between, and records when the sleep ends in `_looks_at`. Whoever changes
    that state calls `_wake`, which compares the two times and notifies the thread if it would
    sleep too long. A thread that is writing needs no notification, because it computes `_due_at`
    again before it sleeps.

    Args:
        sink: the destination.
        max_queue: number of waiting rows at which the thread writes.
        flush_secs: seconds after which it writes fewer rows.
        max_pending_scalars: number of scalars not yet on storage at which the queue is full.
        on_full: what `write` does if the queue is full: "block" waits for room, "drop_oldest"
            discards the items that have waited longest in the queue.
        drop_notice: returns an item to write after a drop, given the number of scalars dropped so
            far and the first item after them; None to write no such item.
        timeout_secs: longest time that `write` waits for room before it raises.
        secrets: credentials to remove from error messages.
        clock: monotonic seconds.
        wait: how the thread sleeps: called with the condition, whose lock is held, and seconds.
            Tests replace it together with `clock` to control time.

    Example:
        >>> from jaxlog.storage import EventSink, Row, Uploads
        >>> writer = BackgroundWriter(EventSink(Uploads("memory://background_writer")))
        >>> writer.write(Row.of({"loss": 0.5}, 0, 0.0))
        >>> writer.flush()
        >>> writer.pending
        0
        >>> writer.close()
    """

    def __init__(
        self,
        sink: Sink,
        *,
        max_queue: int = 10,
        flush_secs: float = 120.0,
        max_pending_scalars: int = 1_000_000,
        on_full: OnFull = "block",
        drop_notice: Callable[[int, Any], object] | None = None,
        timeout_secs: float = 60.0,
        secrets: Secrets | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Condition, float], object] = threading.Condition.wait,
    ) -> None:
        self._sink = sink
        self._max_queue = max_queue
        self._flush_secs = flush_secs
        self._drops = on_full == "drop_oldest"
        self._drop_notice = drop_notice
        self._timeout_secs = timeout_secs
        self._secrets = secrets or Secrets()
        self._clock = clock
        self._sleep = wait
        least, most = _IDLE_SECS
        self._idle_secs = min(max(flush_secs, least), most)
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        # _changed guards everything below. Every wait is in a loop that checks its condition again,
        # because the thread and all callers share this one condition and notify_all wakes them all.
        self._accepted = Pending(max_pending_scalars)
        self._noticed = 0  # number of dropped scalars in the last drop notice
        self._retry_at: float | None = None  # when the sink asks to be flushed again
        self._deferred = False  # the store was unreachable at the last attempt
        self._lost = 0  # scalars that the sink refused, since the last error was raised
        self._waiting_for_room = 0  # number of callers that wait in `write`
        # When the thread looks at this state again by itself; -inf while it is awake or notified.
        self._looks_at = _NOW
        # The earlier of: when the oldest queued row came, when the sink failed on rows it holds.
        self._oldest = _NEVER
        self._last_write = _NOW
        # flush() increments _asked and waits until _done has reached its number. A turn sets _done
        # to the value that _asked had when the turn took the queue: a flush that was asked for
        # during a turn may cover rows that this turn did not take.
        self._asked = self._done = 0
        self._error: BaseException | None = None
        self._ended = False  # the thread has left its loop
        self._closed = False

    @property
    def pending(self) -> int:
        """Number of scalars that were accepted and are not on storage yet."""
        return self._accepted.scalars

    @property
    def dropped(self) -> int:
        """Number of scalars that were accepted and later dropped because the queue was full."""
        return self._accepted.dropped

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def write(self, item: Any, *, rows: int = 1, scalars: int = 1) -> None:
        """Queues `item` without copying it.

        Args:
            item: something that the sink takes.
            rows: number of rows in it.
            scalars: number of scalars in it.

        Raises:
            WriteError: writing has failed since the last call; `item` was not queued.
            LoggerError: the writer is closed, or this is a child of the process that made it.
        """
        self._check_process("write")
        with self._changed:
            if self._closed:
                raise LoggerError(
                    f"{self._sink.path} is closed, so nothing can be written to it; "
                    f"log before close(), or make a new logger"
                )
            if self._error is not None or self._ended:
                raise self._take_error()
            if self._accepted.is_full_for(scalars):
                self._drop_for(scalars) if self._drops else self._wait_for_room(scalars)
            if self._thread is None:
                self._start()
            before = self._accepted.rows
            if not self._accepted.queued_rows:
                self._oldest = min(self._oldest, self._clock())
            self._accepted.add(item, rows, scalars)
            # _due_at depends on the number of rows only through "none", "some" and "max_queue or
            # more", so all other rows skip the call. It costs more than the rest of this method.
            if not before or before < self._max_queue <= self._accepted.rows:
                self._wake()

    def flush(self, timeout: float | None = None) -> None:
        """Returns when everything written before this call is on storage.

        Args:
            timeout: seconds to wait; None for no limit.

        Raises:
            WriteError: writing failed, or took longer than `timeout`.
            LoggerError: this is a child of the process that made the writer.
        """
        self._check_process("flush")
        with self._changed:
            if self._thread is None or self._closed:
                return
            self._asked += 1
            asked = self._asked
            self._wake()
            if not self._wait(lambda: self._done >= asked, timeout):
                raise WriteError(
                    f"{self._sink.path}: flush did not finish within {timeout} s; "
                    f"{self.pending} scalars are not on storage yet and still being written"
                )
            if self._error is not None:
                raise self._take_error()

    def close(self, timeout: float | None = None) -> None:
        """Flushes, then ends the file and the thread; a second call does nothing.

        In a forked child it does nothing, because the file belongs to the parent.

        Raises:
            WriteError: something could not be written, or it took longer than `timeout` seconds.
        """
        if os.getpid() != self._process:
            return
        with self._changed:
            first, self._closed = not self._closed, True
            self._wake()
        if self._thread is None:
            return
        self._thread.join(timeout)
        with self._changed:
            if not self._ended:
                raise WriteError(
                    f"{self._sink.path}: close did not finish within {timeout} s; "
                    f"{self.pending} scalars are not on storage yet"
                )
            if first and self._error is not None:
                raise self._take_error()

    def _check_process(self, verb: str) -> None:
        # Call this before taking the lock. If the parent's thread held the lock at the fork, the
        # child's copy of it is never released.
        if os.getpid() != self._process:
            raise LoggerError(
                f"cannot {verb} to {self._sink.path} here: its logger was made by process "
                f"{self._process}, and this is its child {os.getpid()}; make a logger in the "
                f"child, with a directory of its own"
            )

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="jaxlog-writer", daemon=True)
        self._thread.start()
        close_at_exit(self)

    def _wait_for_room(self, scalars: int) -> None:
        def room() -> bool:
            return not self._accepted.is_full_for(scalars)

        self._waiting_for_room += 1
        self._wake()
        try:
            in_time = self._wait(lambda: room() or self._error is not None, self._timeout_secs)
        finally:
            self._waiting_for_room -= 1
        if self._error is not None:
            raise self._take_error()
        if not in_time:
            raise WriteError(
                f"{self._sink.path}: storage is too slow: {self.pending} scalars wait and none was "
                f"written within {self._timeout_secs} s; log less often, or to a local "
                f"directory that is copied afterwards"
            )

    def _drop_for(self, scalars: int) -> None:
        if not self._accepted.dropped:
            logging.getLogger("jaxlog").warning(
                "%s: storage is too slow, and with on_full='drop_oldest' values are dropped",
                self._sink.path,
            )
        self._accepted.drop_for(scalars)

    def _wait(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Waits for `done()`; returns whether it came true in time. Needs the lock.

        Raises:
            WriteError: the thread has ended, so that waiting would never end.
        """
        # Real time, not `clock`: a timeout must also end in a test that stops the clock.
        deadline = None if timeout is None else time.monotonic() + timeout
        while not done():
            if self._ended or (self._thread is not None and not self._thread.is_alive()):
                raise self._take_error()
            left = _ALIVE_CHECK_SECS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            self._changed.wait(min(left, _ALIVE_CHECK_SECS))
        return True

    def _take_error(self) -> WriteError:
        cause, self._error = self._error, None
        self._wake()  # _due_at ignored the waiting rows while there was an error
        lost, self._lost = self._lost, 0
        if isinstance(cause, SpooledError):
            return WriteError(str(cause))
        what = f"{type(cause).__name__}: {cause}" if cause else "its thread has ended"
        what = self._secrets.hide(what)
        kept = "a later attempt saved everything that was accepted"
        if self._accepted.scalars:
            ending = "are lost" if self._closed else "are kept and tried again at the next flush"
            kept = f"{self.pending} scalars were accepted but not written; they {ending}"
        if lost:
            kept += f"; up to {lost} scalars could not be stored at all and are lost"
        error = WriteError(
            f"could not write to {self._sink.path} ({what}); {kept}. "
            f"Check that the place exists, has room and lets you write"
        )
        # A traceback prints the message of the cause, so a cause that shows a secret is left out.
        error.__cause__ = None if self._secrets.shown_by(cause) else cause
        return error

    # The thread.

    def _run(self) -> None:
        try:
            while not self._turn():
                pass
        except BaseException as error:  # noqa: BLE001  the next call of a user raises it
            with self._changed:
                self._error = self._error or error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _turn(self) -> bool:
        """Sleeps until something is due, then writes and flushes; returns whether to end.

        The lock is released during I/O, so everything that a turn reads before and changes after it
        is read and changed in one block each.
        """
        with self._changed:
            while (due := self._due_at()) > (now := self._clock()):
                # A first row that comes to an idle thread is due flush_secs later. An idle thread
                # looks by itself before that, so the row need not pay for a notification.
                self._looks_at = min(due, now + self._idle_secs)
                self._sleep(self._changed, self._looks_at - now)
            self._looks_at = _NOW
            closing = self._closed
            # While the store is unreachable, only flush again. The sink has no bound on what it
            # holds, so new rows stay in the queue, which has.
            again = self._deferred and not closing
            _, before = self._accepted.held
            items, asked = ([], self._done) if again else (self._take(), self._asked)
            rows, pending = self._accepted.held
        refused = False
        try:
            self._sink.write(items)
        except Exception as error:  # noqa: BLE001  sinks raise the errors of many clients
            refused = self._note(error)
        failed = away = False
        try:
            self._sink.close() if closing else self._sink.flush()
        except StoreAwayError:
            failed = away = True
        except Exception as error:  # noqa: BLE001  as above
            failed = self._note(error)
        retry = self._sink.retry_secs
        retry = _RETRY_SECS if away and retry is None else retry
        with self._changed:
            self._last_write = self._clock()
            self._deferred = away
            self._retry_at = None if retry is None else self._last_write + retry
            if refused:
                # `write` raised, so its items are lost and no longer count as pending.
                self._lost += pending - before
                self._accepted.saved(0, pending - before)
                pending = before
            if failed:
                self._oldest = min(self._oldest, self._last_write)
            else:
                self._accepted.saved(rows, pending)
                if not self._accepted.rows:
                    self._oldest = _NEVER
            if not away:
                self._done = asked
            self._changed.notify_all()
        return closing

    def _take(self) -> list[Any]:
        """Empties the queue; the drop notice, if one is due, comes first."""
        self._oldest = _NEVER
        items, dropped = self._accepted.take(), self._accepted.dropped
        if items and self._drop_notice is not None and self._noticed != dropped:
            items.insert(0, self._drop_notice(dropped, items[0]))
            self._noticed = dropped
        return items

    def _note(self, error: Exception) -> bool:
        """Keeps the first error for the caller; returns whether the data is still unwritten."""
        with self._changed:
            self._error = self._error or error
        return not isinstance(error, SpooledError)  # the data is in the spool, on the local disk

    def _due_at(self) -> float:
        """When the thread has to write or flush next, in the clock's seconds; inf for not at all.

        Every method that changes what is read here calls `_wake` before it releases the lock,
        except the thread itself, which calls this again before it sleeps.
        """
        if self._closed or (self._asked > self._done and not self._deferred):
            return _NOW
        due = _NEVER if self._retry_at is None else self._retry_at
        # After an error no row is due until the caller has seen the error; otherwise a failing
        # store would be tried ten times a second. While the store is unreachable, only the time
        # that the sink gave counts.
        if not self._accepted.rows or self._error is not None or self._deferred:
            return due
        pause = self._last_write + self._sink.min_interval_secs
        if self._waiting_for_room:
            return min(due, pause)
        rows_due = self._oldest + self._flush_secs
        if self._accepted.rows >= self._max_queue:
            # A fast loop logs many rows in a short time. Written together they cost little more
            # than one row.
            rows_due = min(rows_due, self._last_write + _GATHER_SECS)
        return min(due, max(pause, rows_due))

    def _wake(self) -> None:
        """Notifies the thread if something is due before it looks by itself; needs the lock."""
        if self._due_at() < self._looks_at:
            self._looks_at = _NOW
            self._changed.notify_all()
