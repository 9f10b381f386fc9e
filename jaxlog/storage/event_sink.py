"""`EventSink`: turns rows, blocks and hyperparameters into the bytes of an `EventFile`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from jaxlog.storage.block import Block, Row, Rows, blocks_of
from jaxlog.storage.files import EventFile
from jaxlog.storage.hyperparams import Hyperparams, HyperparamsFile, session_end, session_start
from jaxlog.storage.records import scalar_records
from jaxlog.storage.summaries import Summary
from jaxlog.storage.uploads import Uploads

__all__ = ["EventSink"]

_POLITE_BYTES = 1 << 20  # up to this much in one write, give up the GIL between chunks
_REMOTE_INTERVAL_SECS = 1.0  # Cloud Storage takes one write a second for one name


class EventSink:
    """Writes scalars, media, and the records of TensorBoard's HParams page.

    Args:
        uploads: the run's directory.
        start_step: as `EventFile` takes it.
        status: returns how the run ended, "success" or "failed"; called by `close`.
        fsync: as `EventFile` takes it.
        clock: the time in seconds since the epoch.

    Example:
        >>> sink = EventSink(Uploads("memory://event_sink"))
        >>> sink.write([Row.of({"loss": 0.5}, 0, 0.0), Block.row({"loss": 0.25}, 1)])
        >>> sink.flush()
    """

    def __init__(
        self,
        uploads: Uploads,
        *,
        start_step: int | None = None,
        status: Callable[[], str] = lambda: "success",
        fsync: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._uploads = uploads
        self._events = EventFile(uploads, start_step=start_step, fsync=fsync, clock=clock)
        self._hyperparams = HyperparamsFile(uploads)
        self._has_session = False
        self._status = status
        self._clock = clock

    @property
    def path(self) -> str:
        """The current event file."""
        return self._events.path

    @property
    def min_interval_secs(self) -> float:
        """Least time between two uploads that no caller waits for."""
        return 0.0 if self._events.is_local else _REMOTE_INTERVAL_SECS

    @property
    def retry_secs(self) -> float | None:
        """Seconds until the next attempt at the store; None if no data waits for it."""
        return self._uploads.retry_secs

    def write(self, items: Sequence[Block | Row | Rows | Hyperparams | Summary]) -> None:
        """Takes items in order; they are on storage after the next `flush`."""
        for is_scalars, group in groupby(items, lambda item: isinstance(item, Block | Row | Rows)):
            members = list(group)
            if is_scalars:
                self._write_scalars(
                    item for item in members if isinstance(item, Block | Row | Rows)
                )
            for item in members:
                if isinstance(item, Hyperparams):
                    self._write_hyperparams(item)
                elif isinstance(item, Summary):
                    self._events.append(item.record())

    def flush(self) -> None:
        """Puts everything taken on storage; data that fails is kept for the next flush."""
        self._uploads.send()
        self._events.flush()
        self._hyperparams.flush()

    def close(self) -> None:
        """Writes the end of the session and closes the file."""
        if self._has_session:
            self._events.append(session_end(self._status(), self._clock()))
        with self._uploads.last_chance():
            self._events.close()
            self._hyperparams.flush()

    def _write_scalars(self, items: Iterable[Block | Row | Rows]) -> None:
        size = 0
        for block in blocks_of(items):
            for chunk in scalar_records(block):
                # Encoding holds the GIL. sleep(0) lets the training thread run between chunks.
                # After _POLITE_BYTES the caller is far ahead of this thread, so stop waiting.
                if 0 < size < _POLITE_BYTES:
                    time.sleep(0)
                self._events.append(chunk)
                size += len(chunk)

    def _write_hyperparams(self, item: Hyperparams) -> None:
        self._has_session = True
        self._events.append(session_start(item))
        self._hyperparams.take(item.params)
