"""`TensorBoardLogger`: event files that TensorBoard shows, on any filesystem."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from jaxlog.loggers.file_logger import FileLogger
from jaxlog.storage import EventSink, OnFull, RunDirectory, Uploads, log_tensorboard_hint, summaries

__all__ = ["TensorBoardLogger"]


class TensorBoardLogger(FileLogger):
    """Writes event files to `save_dir/name/version/sub_dir`, like Lightning's TensorBoardLogger.

    Each step is one event with all its tags. On a local disk a run is one file. Object stores
    cannot append, so there a run is a few files of a megabyte or more, each uploaded completely.

    A store that is unreachable causes no error and loses no value: requests are repeated with
    growing pauses, and after `spool_secs` everything goes to the local disk until the store is
    reachable again. If TensorBoard needs a special command to follow a live run on the store, a
    warning says so once.

    Args:
        save_dir: local path or any fsspec URL, such as s3://bucket/logs.
        name: folder of the experiment; "" or None for `save_dir` itself.
        version: an int for `version_{n}`, a string unchanged, None for the next free number.
        sub_dir: a folder below the version.
        prefix: put before every tag, joined by "-".
        max_queue: number of waiting rows at which a thread writes them.
        flush_secs: seconds after which it writes fewer rows.
        on_full: what a log call does if a million scalars wait for storage: "block" waits for room
            and raises after a minute; "drop_oldest" drops the rows that have waited longest, and
            logs the number of dropped scalars as `jaxlog/dropped_scalars`.
        spool_secs: seconds that a store may be unreachable before the local disk is used instead.
        spool_dir: folder for that; None for `$JAXLOG_SPOOL_DIR` or, if that is not set, a folder
            in the system's directory for temporary files.
        flush_on_sigterm: whether SIGTERM flushes the logger before it ends the process.
        start_step: the step at which a run resumes in its old directory; TensorBoard then drops
            what was logged from that step on.
        fsync: whether each write waits until a local disk has stored it. Written data survives the
            end of the process in any case, but a loss of power only with `fsync`.
        storage_options: passed to the filesystem, such as credentials.

    Raises:
        LoggerError: an argument is out of range or has the wrong type.

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
        on_full: OnFull = "block",
        spool_secs: float = 30.0,
        spool_dir: str | os.PathLike[str] | None = None,
        flush_on_sigterm: bool = False,
        start_step: int | None = None,
        fsync: bool = False,
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
        self._fsync = fsync
        self._status = "success"

    def log_histogram(
        self,
        tag: str,
        values: npt.ArrayLike,
        step: int | None = None,
        *,
        edges: npt.ArrayLike | None = None,
        bins: int | str = 64,
    ) -> None:
        """Records a histogram, for TensorBoard's Histograms and Distributions.

        Args:
            tag: the name.
            values: real numbers of any shape, of which the finite ones are counted. With `edges`,
                the counts themselves, one more than edges.
            step: at least 0; None for the step after the last.
            edges: increasing bucket edges of counts below the first edge, between edges, and above
                the last edge.
            bins: as for `numpy.histogram`; only without `edges`.

        Raises:
            LoggerError: values that are not real numbers, or edges that do not fit.
            WriteError: storage refused what was logged before; this call recorded nothing.

        Example:
            >>> with TensorBoardLogger("memory://histograms") as logger:
            ...     logger.log_histogram("weights", [0.1, 0.2, 0.2], step=0)
        """
        if edges is None:
            self._log_summary(tag, step, summaries.histogram(tag, values, bins))
        else:
            self._log_summary(tag, step, summaries.bucket_counts(tag, values, edges))

    def log_image(
        self,
        tag: str,
        image: npt.ArrayLike,
        step: int | None = None,
        *,
        dataformats: str | None = None,
    ) -> None:
        """Records a picture, or a batch of them as a grid. Needs pillow.

        Args:
            tag: the name.
            image: uint8 from 0 to 255 or float from 0 to 1; [H, W], [H, W, C] or [N, H, W, C]
                with 1, 3 or 4 channels.
            step: at least 0; None for the step after the last.
            dataformats: the order of the axes if it is another, such as "CHW".

        Raises:
            LoggerError: a shape or dtype that does not fit.
            WriteError: storage refused what was logged before; this call recorded nothing.
        """
        self._log_summary(tag, step, summaries.image(tag, image, dataformats))

    def log_text(self, tag: str, text: str, step: int | None = None) -> None:
        """Records text, which TensorBoard shows as Markdown.

        Raises:
            LoggerError: it is not a string.
            WriteError: storage refused what was logged before; this call recorded nothing.
        """
        self._log_summary(tag, step, summaries.text(tag, text))

    def log_audio(
        self, tag: str, samples: npt.ArrayLike, step: int | None = None, *, sample_rate: int
    ) -> None:
        """Records sound.

        Args:
            tag: the name.
            samples: float from -1 to 1; [frames] or [frames, channels] with 1 or 2 channels.
            step: at least 0; None for the step after the last.
            sample_rate: frames a second.

        Raises:
            LoggerError: a shape or dtype that does not fit.
            WriteError: storage refused what was logged before; this call recorded nothing.
        """
        self._log_summary(tag, step, summaries.audio(tag, samples, sample_rate))

    def finalize(self, status: str) -> None:
        """Closes; TensorBoard's HParams page shows `status`, "success" or "failed"."""
        self._status = status
        self.close()

    def _make_sink(self, uploads: Uploads) -> EventSink:
        log_tensorboard_hint(uploads, self.save_dir)
        return EventSink(
            uploads,
            start_step=self._start_step,
            status=lambda: self._status,
            fsync=self._fsync,
        )
