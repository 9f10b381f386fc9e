"""`TensorBoardLogger`: event files that TensorBoard shows, on any filesystem."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from jaxlog.loggers.file_logger import FileLogger
from jaxlog.storage.event_sink import EventSink
from jaxlog.storage.uploads import Uploads
from jaxlog.storage.versions import RunDirectory
from jaxlog.storage.watching import say_how_to_watch

__all__ = ["TensorBoardLogger"]


class TensorBoardLogger(FileLogger):
    """Writes event files to `save_dir/name/version/sub_dir`, as Lightning's logger of this name.

    Each step is one event with all its tags. On a local disk a run is one file; elsewhere, where
    nothing can be appended, it is a few files of a megabyte or more, each uploaded whole.

    A store that does not answer costs no value and no error: requests are repeated in waits that
    double, and after `spool_secs` everything goes to the local disk until the store is back. Where
    a TensorBoard would show nothing new of a live run, the command that does is said once.

    Args:
        save_dir: local path or any fsspec URL, such as s3://bucket/logs.
        name: folder of the experiment; "" or None for `save_dir` itself.
        version: an int for `version_{n}`, a string as it is, None for the next free number.
        sub_dir: a folder below the version.
        prefix: put before every tag, joined by "-".
        max_queue: rows after which a thread writes what waits.
        flush_secs: seconds after which it writes even fewer rows.
        on_full: what a log call does when a million scalars wait for storage: "block" waits for
            room, and raises after a minute; "drop_oldest" drops what has waited longest, and logs
            how many so far as `jaxlog/dropped_scalars`.
        spool_secs: how long a store may not answer before the local disk is used instead.
        spool_dir: folder for that; None for `$JAXLOG_SPOOL_DIR`, or else one in the system's
            folder for temporary files.
        flush_on_sigterm: whether what was logged is saved when the process is told to end.
        start_step: the step at which a run resumes in a directory it wrote before; TensorBoard
            then drops what was logged from there on.
        storage_options: passed to the filesystem, such as credentials.

    Raises:
        LoggerError: an argument it cannot take.

    Example:
        >>> logger = TensorBoardLogger("memory://logs", "mnist")
        >>> with logger:
        ...     logger.log_metrics({"loss": 0.5}, step=0)
        >>> logger.log_dir
        'memory://logs/mnist/version_0'
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        name: str | None = "jaxlog_logs",
        version: int | str | None = None,
        *,
        sub_dir: str | None = None,
        prefix: str = "",
        max_queue: int = 10,
        flush_secs: float = 120,
        on_full: str = "block",
        spool_secs: float = 30.0,
        spool_dir: str | os.PathLike[str] | None = None,
        flush_on_sigterm: bool = False,
        start_step: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        directory = RunDirectory(save_dir, name, version, sub_dir, storage_options)
        super().__init__(
            directory,
            prefix=prefix,
            max_queue=max_queue,
            flush_secs=flush_secs,
            on_full=on_full,
            spool_secs=spool_secs,
            spool_dir=spool_dir,
            flush_on_sigterm=flush_on_sigterm,
        )
        self._start_step = start_step
        self._status = "success"

    def finalize(self, status: str) -> None:
        """Closes; TensorBoard's HParams page shows `status`, "success" or "failed"."""
        self._status = status
        self.close()

    def _make_sink(self, uploads: Uploads) -> EventSink:
        say_how_to_watch(uploads, self.save_dir)
        return EventSink(uploads, start_step=self._start_step, status=lambda: self._status)
