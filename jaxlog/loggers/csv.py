"""`CSVLogger`: one table per run, on any filesystem."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from jaxlog.errors import LoggerError
from jaxlog.loggers.file_logger import FileLogger
from jaxlog.storage import CSVFile, OnFull, RunDirectory, Uploads

__all__ = ["CSVLogger"]

_FLUSH_SECS = 120.0


class CSVLogger(FileLogger):
    """Writes `metrics.csv` in `save_dir/name/version`, like Lightning's CSVLogger.

    Args:
        save_dir: local path or any fsspec URL, such as s3://bucket/logs.
        name: folder of the experiment; "" or None for `save_dir` itself.
        version: an int for `version_{n}`, a string unchanged, None for the next free number.
        prefix: put before every tag, joined by "-".
        flush_logs_every_n_steps: number of waiting rows at which a thread writes them.
        on_full: "block" or "drop_oldest", as in `TensorBoardLogger`.
        spool_secs: seconds that a store may be unreachable before the local disk is used instead.
        spool_dir: folder for that.
        flush_on_sigterm: whether SIGTERM flushes the logger before it ends the process.
        storage_options: passed to the filesystem, such as credentials.

    Raises:
        LoggerError: an argument is out of range or has the wrong type.

    Example:
        >>> with CSVLogger("memory://logs", "table") as logger:
        ...     logger.log_metrics({"loss": 0.5}, step=0)
        >>> logger.log_dir
        'memory://logs/table/version_0'
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        name: str | None = "jaxlog_logs",
        version: int | str | None = None,
        *,
        prefix: str = "",
        flush_logs_every_n_steps: int = 100,
        on_full: OnFull = "block",
        spool_secs: float = 30.0,
        spool_dir: str | os.PathLike[str] | None = None,
        flush_on_sigterm: bool = False,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        if flush_logs_every_n_steps < 1:
            raise LoggerError(
                f"flush_logs_every_n_steps must be at least 1, but got {flush_logs_every_n_steps}"
            )
        super().__init__(
            RunDirectory(save_dir, name, version, None, storage_options),
            prefix=prefix,
            max_queue=flush_logs_every_n_steps,
            flush_secs=_FLUSH_SECS,
            on_full=on_full,
            spool_secs=spool_secs,
            spool_dir=spool_dir,
            flush_on_sigterm=flush_on_sigterm,
        )

    def _make_sink(self, uploads: Uploads) -> CSVFile:
        return CSVFile(uploads)

    def _check_tags(self, tags: Iterable[str]) -> None:
        if "step" in tags:
            raise LoggerError(
                "'step' is the first column of metrics.csv and cannot be a tag too; "
                "give the step as step=..., or the metric another name"
            )
