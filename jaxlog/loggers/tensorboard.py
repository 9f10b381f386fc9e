"""`TensorBoardLogger`: event files that TensorBoard shows, on any filesystem."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from jaxlog.loggers.file_logger import FileLogger
from jaxlog.storage.event_sink import EventSink
from jaxlog.storage.files import EventFile
from jaxlog.storage.hyperparams import HyperparamsFile
from jaxlog.storage.versions import RunDirectory

__all__ = ["TensorBoardLogger"]


class TensorBoardLogger(FileLogger):
    """Writes event files to `save_dir/name/version/sub_dir`, as Lightning's logger of this name.

    Each step is one event with all its tags. On a local disk a run is one file; elsewhere, where
    nothing can be appended, it is a few files of a megabyte or more, each uploaded whole.

    A TensorBoard that reads s3:// without boto3, or abfs://, remembers its first listing and then
    shows nothing new. Start it with `FSSPEC_S3='{"use_listings_cache": false}'` (`FSSPEC_ABFS` for
    abfs://) in its environment.

    Args:
        save_dir: local path or any fsspec URL, such as s3://bucket/logs.
        name: folder of the experiment; "" or None for `save_dir` itself.
        version: an int for `version_{n}`, a string as it is, None for the next free number.
        sub_dir: a folder below the version.
        prefix: put before every tag, joined by "-".
        max_queue: rows after which a thread writes what waits.
        flush_secs: seconds after which it writes even fewer rows.
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
        start_step: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        directory = RunDirectory(save_dir, name, version, sub_dir, storage_options)
        super().__init__(directory, prefix=prefix, max_queue=max_queue, flush_secs=flush_secs)
        self._start_step = start_step
        self._status = "success"

    def finalize(self, status: str) -> None:
        """Closes; TensorBoard's HParams page shows `status`, "success" or "failed"."""
        self._status = status
        self.close()

    def _make_sink(self, log_dir: str, storage_options: Mapping[str, Any]) -> EventSink:
        events = EventFile(log_dir, start_step=self._start_step, storage_options=storage_options)
        return EventSink(
            events, HyperparamsFile(log_dir, storage_options), status=lambda: self._status
        )
