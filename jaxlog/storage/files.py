"""`EventFile`: the event files of one session.

On a local disk there is one file, to which each flush appends. Elsewhere a run is a sequence of
segments, and each flush uploads the current one completely.
"""

from __future__ import annotations

import io
import os
import re
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from jaxlog.errors import LoggerError
from jaxlog.storage.filesystem import append_whole, join_url
from jaxlog.storage.records import file_version_record, session_start_record
from jaxlog.storage.retry import is_transient
from jaxlog.storage.uploads import Uploads

__all__ = ["EventFile"]

_SEGMENT_BYTES = 1 << 20
_START = re.compile(r"events\.out\.tfevents\.(\d{10})\.[^/]*$")
_GROW_EVERY = 256  # segments of one size


class EventFile:
    """Writes records to the event files of one directory.

    On a local disk there is one file, to which each flush appends by one write. No other filesystem
    can append safely (gcsfs truncates, s3fs downloads and uploads everything again), so there each
    flush uploads the current segment completely: one request, atomic, and repeatable. When a
    segment is full, the next one begins.

    A file is made at the first flush with data. Its name sorts by start time and number, has a
    random part, and is never reused, so sessions do not overwrite each other.

    Args:
        directory: local path or URL of the run's directory, or an `Uploads` of it.
        start_step: the step at which this session resumes; readers then drop what earlier
            sessions logged from that step on. None or 0 for a new run.
        segment_bytes: size at which a segment is full (not on a local disk). It grows by as much
            every `grow_every` segments, because readers open every object of a run: one run took
            126 s in 500 objects and 0.3 s in one.
        grow_every: number of segments of one size.
        fsync: whether a flush waits until a local disk has stored the data, so that it survives a
            loss of power. The end of the process loses nothing that was flushed either way.
        clock: the time in seconds since the epoch.

    Raises:
        LoggerError: `start_step` is negative, or no filesystem knows the URL.

    Example:
        >>> from jaxlog.storage import Block, scalar_records
        >>> events = EventFile("memory://event_file")
        >>> for chunk in scalar_records(Block.row({"loss": 0.5}, step=0)):
        ...     events.append(chunk)
        >>> events.flush()
        >>> events.path.rpartition(".")[2]
        '000000'
    """

    def __init__(
        self,
        directory: str | Uploads,
        *,
        start_step: int | None = None,
        segment_bytes: int = _SEGMENT_BYTES,
        grow_every: int = _GROW_EVERY,
        fsync: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if start_step is not None and start_step < 0:
            raise LoggerError(f"start_step is at least 0, but got {start_step}")
        self._uploads = directory if isinstance(directory, Uploads) else Uploads(directory)
        self._filesystem, self._directory = self._uploads.filesystem, self._uploads.root
        self._url = self._uploads.url
        self._start_step = start_step
        self._segment_bytes = segment_bytes
        self._grow_every = grow_every
        self._clock = clock
        self._stem: str | None = None  # the name without the number; chosen by the first flush
        self._number = 0  # of the current segment
        self._local = _LocalFile(self._directory, fsync=fsync) if self._uploads.is_local else None
        # Remote: all bytes of the current segment, of which the store has the first `_saved`.
        # Local: the bytes that the file does not have yet, and `_saved` stays 0.
        self._segment = bytearray()
        self._saved = 0

    @property
    def path(self) -> str:
        """Path or URL of the current file; before the first flush, of its directory."""
        return self._url if self._stem is None else join_url(self._url, self._name)

    @property
    def is_local(self) -> bool:
        """Whether the files are on a local disk."""
        return self._local is not None

    @property
    def unwritten(self) -> int:
        """Number of bytes that wait for the next flush."""
        return len(self._segment) - self._saved

    def append(self, records: bytes) -> None:
        """Takes complete records; they are on storage after the next `flush`."""
        if not self._segment and not (self._local and self._local.size):
            self._segment += self._header()
        self._segment += records

    def flush(self) -> None:
        """Returns when everything appended so far is on storage; after an error, call it again.

        Raises:
            OSError: storage refused. Data of earlier flushes is intact; the rest is kept for the
                next flush.
        """
        if not self.unwritten:
            return
        if self._stem is None:
            self._stem = _stem(max(int(self._clock()), 1 + self._latest_start()))
        if self._local is not None:
            self._local.write(self._name, self._segment)
            self._segment.clear()
            return
        path = f"{self._directory.rstrip('/')}/{self._name}"
        self._uploads.put(path, bytes(self._segment))
        self._saved = len(self._segment)
        if self._saved >= self._segment_bytes * (1 + self._number // self._grow_every):
            self._number += 1
            self._segment, self._saved = bytearray(), 0

    def close(self) -> None:
        """Flushes and closes the file."""
        try:
            self.flush()
        finally:
            if self._local is not None:
                self._local.close()

    @property
    def _name(self) -> str:
        return f"{self._stem}.{self._number:06d}"

    def _latest_start(self) -> int:
        """The latest start time in the names of the existing files; -1 without files.

        Readers order files by name, and TensorBoard drops points whose step falls from one file to
        the next. So this session's name must sort after those of earlier sessions, also if they
        began in the same second or on a machine whose clock is ahead.
        """
        try:
            names = self._filesystem.ls(self._directory, detail=False)
        except Exception as error:
            # The directory does not exist, the credentials may write but not list, or the store is
            # unreachable. None of these may stop the run.
            if not isinstance(error, OSError) and not is_transient(error):
                raise
            return -1
        return max(
            (int(found[1]) for found in map(_START.search, map(str, names)) if found), default=-1
        )

    def _header(self) -> bytes:
        now = self._clock()
        header = file_version_record(now)
        # In the first segment only: readers drop points at every START record.
        if self._start_step and self._number == 0:
            # Twice: TensorBoard's Python loader ignores the first START of a run.
            header += session_start_record(self._start_step, now) * 2
        return header


class _LocalFile:
    """A file opened with "x", so that it is new; it only ever holds complete writes."""

    def __init__(self, directory: str, *, fsync: bool) -> None:
        self._directory = Path(directory)
        self._fsync = fsync
        self._file: io.FileIO | None = None
        self.size = 0

    def write(self, name: str, data: bytes | bytearray) -> None:
        if self._file is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._file = (self._directory / name).open("xb", buffering=0)
            if self._fsync:
                _sync_directory(self._directory)
        append_whole(self._file, data)
        if self._fsync:
            os.fsync(self._file.fileno())
        self.size += len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _sync_directory(path: Path) -> None:
    """Makes the name of a new file durable; only POSIX systems can open a directory for that."""
    if os.name == "posix":
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _stem(start: int) -> str:
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:64] or "localhost"
    return f"events.out.tfevents.{start:010d}.{host}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
