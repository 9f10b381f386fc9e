"""`EventSink`: turns rows, blocks and hyperparameters into the bytes of an `EventFile`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from jaxlog.storage.block import Block, Row, blocks_of
from jaxlog.storage.files import EventFile
from jaxlog.storage.hyperparams import Hyperparams, HyperparamsFile, session_end, session_start
from jaxlog.storage.records import scalar_records

__all__ = ["EventSink"]

_REMOTE_INTERVAL_SECS = 1.0  # Cloud Storage takes one write a second for one name


class EventSink:
    """Writes scalars, and hyperparameters for TensorBoard's own page of them.

    Args:
        events: where the records go.
        hyperparams: where `hparams.yaml` goes; None for nowhere.
        status: how the run ended, "success" or "failed"; asked for at the end.

    Example:
        >>> sink = EventSink(EventFile("memory://event_sink"))
        >>> sink.write([Row({"loss": 0.5}, 0, 0.0), Block.row({"loss": 0.25}, 1)])
        >>> sink.flush()
    """

    def __init__(
        self,
        events: EventFile,
        hyperparams: HyperparamsFile | None = None,
        *,
        status: Callable[[], str] = lambda: "success",
    ) -> None:
        self._events = events
        self._hyperparams = hyperparams
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

    def write(self, items: Sequence[Block | Row | Hyperparams]) -> None:
        """Takes items in order; they are on storage after the next `flush`."""
        for is_scalars, group in groupby(items, lambda item: isinstance(item, Block | Row)):
            alike = list(group)
            if is_scalars:
                self._write_scalars(item for item in alike if isinstance(item, Block | Row))
            for item in alike:
                if isinstance(item, Hyperparams):
                    self._write_hyperparams(item)

    def flush(self) -> None:
        """Puts everything taken on storage; what fails is kept for the next time."""
        self._events.flush()
        if self._hyperparams is not None:
            self._hyperparams.flush()

    def close(self) -> None:
        """Ends the session and lets go of the file."""
        if self._has_session:
            self._events.append(session_end(self._status(), time.time()))
        self._events.close()

    def _write_scalars(self, items: Iterable[Block | Row]) -> None:
        for block in blocks_of(items):
            for chunk in scalar_records(block):
                self._events.append(chunk)
                time.sleep(0)  # the caller's thread gets its turn between two chunks

    def _write_hyperparams(self, item: Hyperparams) -> None:
        self._has_session = True
        self._events.append(session_start(item))
        if self._hyperparams is not None:
            self._hyperparams.take(item.params)
