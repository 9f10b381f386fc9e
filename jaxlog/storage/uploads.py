"""`Uploads`: puts complete files on a store, and keeps them while the store is unreachable.

A file goes through three places: memory (`_waiting`), then after `spool_secs` the spool (a folder
on the local disk), and finally the store. Each attempt offers all waiting files to the store again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxlog.storage.filesystem import is_local, open_filesystem, read_whole, write_whole
from jaxlog.storage.retry import Backoff, StoreAwayError, is_transient
from jaxlog.storage.secrets import Secrets, safe_url

__all__ = ["SpooledError", "Uploads", "upload_spool"]

_SPOOL_SECS = 30.0
_log = logging.getLogger("jaxlog")


class SpooledError(OSError):
    """The store was unreachable until the end; the data is on the local disk."""


class Uploads:
    """The files of one logger, each written completely; new content of a file replaces the old.

    While the store is unreachable, `put` raises `StoreAwayError` and the content stays in memory.
    The time between two attempts doubles. After `spool_secs` the content goes to a folder on the
    local disk instead, a warning says so once, and `put` succeeds. When the store is reachable
    again, the folder is uploaded and emptied. A store that refuses, for example because a
    permission is missing, raises immediately.

    On a local disk `put` is a plain write.

    Attributes:
        filesystem: the store.
        root: the path of `url` on the store.
        url: the destination, without credentials.
        secrets: credentials to remove from messages.

    Args:
        url: the destination.
        storage_options: passed to the filesystem.
        spool_secs: seconds that the store may be unreachable before the local disk is used.
        spool_dir: folder for the spool; None for `$JAXLOG_SPOOL_DIR` or, if that is not set, a
            folder in the system's directory for temporary files.
        clock: monotonic seconds.
        backoff: gives the time between two attempts.

    Example:
        >>> uploads = Uploads("memory://uploads")
        >>> uploads.put("/uploads/file", b"abc")
        >>> uploads.filesystem.cat_file("/uploads/file")
        b'abc'
    """

    def __init__(
        self,
        url: str,
        storage_options: Mapping[str, Any] | None = None,
        *,
        spool_secs: float = _SPOOL_SECS,
        spool_dir: str | os.PathLike[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff | None = None,
    ) -> None:
        self.filesystem, self.root = open_filesystem(url, storage_options)
        self.secrets = Secrets(url, storage_options)
        self.url = safe_url(url)
        self._spool_secs = spool_secs
        self._spool = _Spool(self.filesystem, spool_dir)
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._waiting: dict[str, bytes | None] = {}  # by path; None: the content is in the spool
        self._away_since: float | None = None  # None while the store is reachable
        self._retry_at = float("-inf")
        self._reason = ""
        self._final = False  # within last_chance: no later attempt follows
        self._gave_up = False  # the final attempt has failed; do not try each further file

    @property
    def is_local(self) -> bool:
        """Whether the destination is a local disk."""
        return is_local(self.filesystem)

    @property
    def retry_secs(self) -> float | None:
        """Seconds until the next attempt at the store; None if it is reachable."""
        if self._away_since is None:
            return None
        return max(0.0, self._retry_at - self._clock())

    @property
    def spool_dir(self) -> str | None:
        """The folder with files that the store did not take; None if there are none."""
        return str(self._spool.folder) if self._spool.paths else None

    @property
    def spooling(self) -> bool:
        """Whether the store has been unreachable for so long that the local disk is used."""
        if self._away_since is None:
            return False
        return self._final or self._clock() - self._away_since >= self._spool_secs

    def read(self, path: str) -> bytes:
        """The content of the file at `path`.

        Raises:
            FileNotFoundError: the file does not exist.
            StoreAwayError: the store is unreachable.
            OSError: the store refused.
        """
        if self._is_due():
            try:
                content = read_whole(self.filesystem, path)
            except Exception as error:  # noqa: BLE001  each client has its own error classes
                self._note(error)
            else:
                self._is_back()
                return content
        raise self._away()

    def put(self, path: str, data: bytes) -> None:
        """Writes `data` to `path`; when this returns, it is on the store or in the spool.

        Raises:
            StoreAwayError: the store is unreachable; `send` or the next `put` tries again.
            OSError: the store refused, or the spool has no room.
        """
        if self.is_local:
            write_whole(self.filesystem, path, data)
            return
        self._waiting[path] = data
        self.send()

    def send(self) -> None:
        """Writes the files that wait.

        Raises:
            StoreAwayError: the store is unreachable.
            OSError: it refused, or the spool has no room.
        """
        if not self._waiting:
            return
        if self._is_due():
            self._ask()
        if self._waiting:
            self._keep()

    @contextlib.contextmanager
    def last_chance(self) -> Iterator[None]:
        """A context for the last writes: files go to the store now, or to the spool.

        Raises:
            SpooledError: files went to the spool.
            OSError: the store refused, or the spool has no room.
        """
        self._final = True
        yield
        self.send()
        if self._waiting:
            raise SpooledError(
                f"{self.url} does not answer ({self._reason}); what it did not take is kept in "
                f"{self._spool.folder}; when it is back: jaxlog upload {self._spool.folder}"
            )

    def _ask(self) -> None:
        """Writes all waiting files to the store; those that fail stay in `_waiting`."""
        for path, data in list(self._waiting.items()):
            try:
                content = self._spool.read(path) if data is None else data
                write_whole(self.filesystem, path, content)
            except Exception as error:  # noqa: BLE001  each client has its own error classes
                self._note(error)
                return
            del self._waiting[path]
            self._spool.forget(path)
        if self._spool.used:
            _log.warning("%s is back; everything kept meanwhile is there", self.url)
            self._spool.used = False
        self._is_back()

    def _is_due(self) -> bool:
        if self._final:
            return not self._gave_up
        return self._clock() >= self._retry_at

    def _note(self, error: Exception) -> None:
        """Sets the time of the next attempt; raises an error that another attempt cannot cure."""
        if self.is_local or not is_transient(error):
            raise error
        # The time after the attempt: a client may have retried for minutes before it raised.
        now = self._clock()
        self._away_since = now if self._away_since is None else self._away_since
        self._retry_at = now + self._backoff.next()
        self._gave_up = self._final
        self._reason = self.secrets.hide(f"{type(error).__name__}: {error}")

    def _is_back(self) -> None:
        self._away_since, self._retry_at = None, float("-inf")
        self._backoff.reset()

    def _away(self) -> StoreAwayError:
        return StoreAwayError(f"{self.url} does not answer: {self._reason}")

    def _keep(self) -> None:
        """Moves waiting files to the spool, if the store has been unreachable for long enough."""
        if not self.spooling:
            raise self._away()
        first = not self._spool.used
        for path, data in self._waiting.items():
            if data is not None:
                self._spool.save(path, data)
                self._waiting[path] = None
        if first and not self._final:
            _log.warning(
                "%s has not answered for %g s (%s); what is logged goes to %s until it does",
                self.url, self._spool_secs, self._reason, self._spool.folder,
            )  # fmt: skip


class _Spool:
    """A folder on the local disk; a file in it has the same path as on the store.

    The folder's name begins with the store's protocol, so that `upload_spool` finds the store from
    the folder alone.
    """

    def __init__(self, filesystem: Any, root: str | os.PathLike[str] | None) -> None:
        protocol = filesystem.protocol
        name = protocol if isinstance(protocol, str) else protocol[0]
        self.folder = Path(root or _default_root()) / f"{name}-{uuid.uuid4().hex[:12]}"
        self.paths: set[str] = set()
        self.used = False

    def save(self, path: str, data: bytes) -> None:
        self.used = True
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(_disk(), str(self._place(path)), data)
        self.paths.add(path)

    def read(self, path: str) -> bytes:
        return self._place(path).read_bytes()

    def forget(self, path: str) -> None:
        if path in self.paths:
            self.paths.remove(path)
            self._place(path).unlink(missing_ok=True)
            # Remove empty folders too, but not the root: other loggers may have a spool in it.
            with contextlib.suppress(OSError):
                for parent in self._place(path).parents:
                    parent.rmdir()
                    if parent == self.folder:
                        break

    def _place(self, path: str) -> Path:
        return self.folder / path.lstrip("/")


def upload_spool(
    folder: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> int:
    """Uploads the files of a spool to their store; returns the number of files.

    Each file is removed from the folder once the store has it, so after an error this can be called
    again.

    Args:
        folder: the folder that the warning or the error named.
        storage_options: passed to the filesystem, such as credentials.

    Example:
        >>> folder = Path(tempfile.mkdtemp()) / "memory-0123456789ab"
        >>> write_whole(_disk(), str(folder / "bucket" / "file"), b"abc")
        >>> upload_spool(folder)
        1
        >>> open_filesystem("memory://bucket")[0].cat_file("/bucket/file")
        b'abc'
    """
    source = Path(folder)
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is no folder; pass the one that the warning named")
    protocol = source.name.rpartition("-")[0]
    filesystem, _ = open_filesystem(f"{protocol}://", storage_options)
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    for file in files:
        path = file.relative_to(source).as_posix()
        target = f"/{path}" if str(filesystem.root_marker) == "/" else path
        write_whole(filesystem, target, file.read_bytes())
        file.unlink()
    for empty in sorted((path for path in source.rglob("*") if path.is_dir()), reverse=True):
        empty.rmdir()
    source.rmdir()
    return len(files)


def _disk() -> Any:
    import fsspec  # noqa: PLC0415 - import jaxlog must not load it, only the first file

    return fsspec.filesystem("file")


def _default_root() -> Path:
    chosen = os.environ.get("JAXLOG_SPOOL_DIR")
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"jaxlog-spool-{user}"
