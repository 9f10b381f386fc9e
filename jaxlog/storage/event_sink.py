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

_POLITE_BYTES = 1 << 20
_REMOTE_INTERVAL_SECS = 1.0  # Cloud Storage takes one write a second for one name


class EventSink:
    """Writes scalars, and hyperparameters for TensorBoard's own page of them.

    Args:
        uploads: the run's directory.
        start_step: as `EventFile` takes it.
        status: how the run ended, "success" or "failed"; asked for at the end.
        fsync: as `EventFile` takes it.

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
    ) -> None:
        self._uploads = uploads
        self._events = EventFile(uploads, start_step=start_step, fsync=fsync)
        self._hyperparams = HyperparamsFile(uploads)
        self._has_session = False
        self._status = status

    @property
    def path(self) -> str:
        """The event file that is written now."""
        return self._events.path

    @property
    def min_interval_secs(self) -> float:
        """Least time between two uploads that nobody waits for."""
        return 0.0 if self._events.is_local else _REMOTE_INTERVAL_SECS

    @property
    def retry_secs(self) -> float | None:
        """Seconds until the store is to be asked again; None when nothing waits for it."""
        return self._uploads.retry_secs

    def write(self, items: Sequence[Block | Row | Rows | Hyperparams | Summary]) -> None:
        """Takes items in order; they are on storage after the next `flush`."""
        for is_scalars, group in groupby(items, lambda item: isinstance(item, Block | Row | Rows)):
            alike = list(group)
            if is_scalars:
                self._write_scalars(item for item in alike if isinstance(item, Block | Row | Rows))
            for item in alike:
                if isinstance(item, Hyperparams):
                    self._write_hyperparams(item)
                elif isinstance(item, Summary):
                    self._events.append(item.record())

    def flush(self) -> None:
        """Puts everything taken on storage; what fails is kept for the next time."""
        self._uploads.send()
        self._events.flush()
        self._hyperparams.flush()

    def close(self) -> None:
        """Ends the session and lets go of the file."""
        if self._has_session:
            self._events.append(session_end(self._status(), time.time()))
        with self._uploads.last_chance():
            self._events.close()
            self._hyperparams.flush()

    def _write_scalars(self, items: Iterable[Block | Row | Rows]) -> None:
        size = 0
        for block in blocks_of(items):
            for chunk in scalar_records(block):
                # The caller's thread gets its turn; one that is far ahead wants to be caught up.
                if 0 < size < _POLITE_BYTES:
                    time.sleep(0)
                self._events.append(chunk)
                size += len(chunk)

    def _write_hyperparams(self, item: Hyperparams) -> None:
        self._has_session = True
        self._events.append(session_start(item))
        self._hyperparams.take(item.params)
