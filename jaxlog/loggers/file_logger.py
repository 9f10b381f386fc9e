"""`FileLogger`: the common part of loggers that write files in a run's directory.

A log call checks its arguments, queues a `Row`, `Block`, `Hyperparams` or `Summary`, and returns;
a `BackgroundWriter` does everything else on its thread.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Self, SupportsFloat, get_args

from jaxlog.errors import LoggerError
from jaxlog.loggers.logger import NUMBERS, Logger, checked_metrics, checked_step
from jaxlog.storage import (
    BackgroundWriter,
    Block,
    Hyperparams,
    OnFull,
    Row,
    Rows,
    RunDirectory,
    Sink,
    Summary,
    Uploads,
    close_at_sigterm,
    flat_params,
)

__all__ = ["FileLogger"]

_ON_FULL = get_args(OnFull)
# Number of cached sets of names. Bounded, because a program that makes up new names at each step
# would fill the memory.
_MOST_KNOWN = 1000
_DROPPED = "jaxlog/dropped_scalars"


class FileLogger(Logger):
    """A logger that writes files below `save_dir/name/version` on a thread.

    A subclass defines the files in `_make_sink`. Nothing is created on storage before the first
    value is logged, or `version` or `log_dir` is read.

    Example:
        >>> from jaxlog.loggers import CSVLogger
        >>> issubclass(CSVLogger, FileLogger)
        True
    """

    def __init__(
        self,
        directory: RunDirectory,
        *,
        prefix: str,
        max_queue: int,
        flush_secs: float,
        on_full: OnFull = "block",
        spool_secs: float = 30.0,
        spool_dir: str | os.PathLike[str] | None = None,
        flush_on_sigterm: bool = False,
    ) -> None:
        for option, value in (("max_queue", max_queue), ("flush_secs", flush_secs)):
            if not value > 0:
                raise LoggerError(f"{option} must be more than 0, but got {value}")
        if on_full not in _ON_FULL:
            raise LoggerError(f"on_full must be 'block' or 'drop_oldest', but got {on_full!r}")
        if not spool_secs >= 0:
            raise LoggerError(f"spool_secs must be at least 0, but got {spool_secs}")
        self._on_full: OnFull = on_full
        self._spool: dict[str, Any] = {"spool_secs": spool_secs, "spool_dir": spool_dir}
        self._flush_on_sigterm = flush_on_sigterm
        self._directory = directory
        self._prefix = prefix
        self._max_queue = max_queue
        self._flush_secs = flush_secs
        self._next_step = 0
        # Names as given -> tags as written, with the prefix. The values also serve as the one tuple
        # for all rows with the same names, which Pending compares by identity.
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}  # the same for blocks
        self._making = threading.Lock()
        self._writer_made: BackgroundWriter | None = None
        self._closed = False

    def for_lane(self, lane: str) -> Self:
        """A logger for one lane, in a directory with the lane's name below this run."""
        own, directory = copy.copy(self), self._directory
        sub_dir = "/".join(filter(None, (directory.sub_dir, lane)))
        own._directory = RunDirectory(
            directory.save_dir, directory.name, self.version, sub_dir, directory.storage_options
        )
        own._known, own._names = {}, {}
        own._making, own._writer_made = threading.Lock(), None
        return own

    def _make_sink(self, uploads: Uploads) -> Sink:
        """The sink for the files of the run; called once, before the first write."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self._directory.name

    @property
    def version(self) -> int | str:
        """The version as given, or else the next free number, reserved by the first access."""
        return self._directory.version

    @property
    def save_dir(self) -> str:
        """The directory of all experiments."""
        return self._directory.save_dir

    @property
    def root_dir(self) -> str:
        """The directory of all versions of this experiment."""
        return self._directory.root_dir

    @property
    def log_dir(self) -> str:
        """The directory of this run's files."""
        return self._directory.log_dir

    @property
    def pending(self) -> int:
        """Number of scalars that were logged and are not on storage yet."""
        return 0 if self._writer_made is None else self._writer_made.pending

    def log_metrics(self, metrics: Mapping[str, SupportsFloat], step: int | None = None) -> None:
        """Records the values at `step`; None for the step after the last.

        This takes microseconds: a thread converts and writes the values.

        Args:
            metrics: numbers, 0-d arrays and anything with `__float__`, by tag.
            step: at least 0.

        Raises:
            LoggerError: a value is not a number, or the logger is closed.
            WriteError: storage refused what was logged before; this call recorded nothing.
        """
        row = self._row(metrics, checked_step(step, self._next_step))
        self._writer().write(row, scalars=len(row.values))
        self._next_step = row.step + 1

    def write_block(self, block: Block) -> None:
        """Records the rows of `block`, in order; the block is not copied.

        Raises:
            LoggerError: the logger is closed.
            WriteError: storage refused what was logged before; this call recorded nothing.
        """
        if not block.steps.size:
            return
        block = block.without_lanes()
        if self._prefix:
            if block.tags not in self._names:
                self._names[block.tags] = tuple(f"{self._prefix}-{tag}" for tag in block.tags)
            block = dataclasses.replace(block, tags=self._names[block.tags])
        self._check_tags(block.tags)
        self._writer().write(block, rows=len(block.steps), scalars=block.values.size)
        self._next_step = int(block.steps[-1]) + 1

    def log_hyperparams(self, params: object, metrics: Mapping[str, Any] | None = None) -> None:
        """Records the hyperparameters of the run in `hparams.yaml`.

        Args:
            params: a mapping, nested or not, or an object with attributes.
            metrics: values to show with them, recorded at step 0.

        Raises:
            LoggerError: a metric is not a number, or the logger is closed.
            WriteError: storage refused what was logged before; this call recorded nothing.
        """
        checked = checked_metrics(metrics or {}, self._prefix)
        now = time.time()
        item = Hyperparams(flat_params(params), tuple(checked), now)
        self._writer().write(item, scalars=len(item.params))
        if checked:
            self._writer().write(Row.of(checked, 0, now), scalars=len(checked))

    def _log_summary(self, tag: str, step: int | None, build: Callable[[], Any]) -> None:
        if not isinstance(tag, str):
            raise LoggerError(f"a tag is a string, but got {tag!r} of type {type(tag).__name__}")
        name = f"{self._prefix}-{tag}" if self._prefix else tag
        item = Summary(name, checked_step(step, self._next_step), time.time(), build)
        self._writer().write(item)
        self._next_step = item.step + 1

    def flush(self, timeout: float | None = None) -> None:
        """Returns when everything logged so far is on storage.

        While a store is unreachable this waits, for at most `spool_secs`; the values are then on
        the local disk.

        Args:
            timeout: seconds to wait; None for no limit.

        Raises:
            WriteError: storage refused, or took longer than `timeout`; the values are kept for the
                next flush.
        """
        if self._writer_made is not None:
            self._writer_made.flush(timeout)

    def close(self, timeout: float | None = None) -> None:
        """Flushes and closes the files; a second call does nothing.

        Args:
            timeout: seconds to wait; None for no limit.

        Raises:
            WriteError: storage refused, and the values it did not take are lost; or it was
                unreachable, and the message names the folder on the local disk that has them.
        """
        self._closed = True
        if self._writer_made is not None:
            self._writer_made.close(timeout)

    def _row(self, metrics: Mapping[str, Any], step: int) -> Row:
        # The fast path of every log call: names that were logged before are checked already, and
        # values of builtin and numpy types need no check.
        values = tuple(metrics.values())
        tags = self._known.get(tuple(metrics))
        if tags is None or not NUMBERS.issuperset(map(type, values)):
            checked = checked_metrics(metrics, self._prefix)
            self._check_tags(checked)
            tags, values = tuple(checked), tuple(checked.values())
            if len(self._known) < _MOST_KNOWN:
                self._known[tuple(metrics)] = tags
        return Row(tags, values, step, time.time())

    def _check_tags(self, tags: Any) -> None:
        """Raises LoggerError for a tag that these files cannot hold."""

    def _writer(self) -> BackgroundWriter:
        if self._writer_made is not None:
            return self._writer_made
        with self._making:
            if self._closed:
                raise LoggerError("this logger is closed; log before close(), or make a new one")
            if self._writer_made is None:
                uploads = Uploads(self.log_dir, self._directory.storage_options, **self._spool)
                self._writer_made = BackgroundWriter(
                    self._make_sink(uploads),
                    max_queue=self._max_queue,
                    flush_secs=self._flush_secs,
                    on_full=self._on_full,
                    drop_notice=self._drop_notice,
                    secrets=uploads.secrets,
                )
                if self._flush_on_sigterm:
                    close_at_sigterm(self._writer_made)
            return self._writer_made

    def _drop_notice(self, dropped: int, after: Any) -> Row:
        match after:
            case Rows():
                step = after.steps[0]
            case Block():
                step = int(after.steps[0])
            case Summary():
                step = after.step
            case _:
                step = 0
        return self._row({_DROPPED: dropped}, step)
