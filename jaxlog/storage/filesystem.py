"""Filesystems by fsspec URL, and the few operations that differ between them.

All reads and writes of jaxlog go through this module. It never opens a remote file for appending.
"""

from __future__ import annotations

import contextlib
import io
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlog.errors import LoggerError, MissingDependencyError
from jaxlog.storage.secrets import Secrets, safe_url

if TYPE_CHECKING:
    import fsspec

__all__ = [
    "append_whole",
    "is_in_memory",
    "is_local",
    "join_url",
    "open_filesystem",
    "parent_of",
    "plain_url",
    "read_whole",
    "write_whole",
]

# Protocol -> the package that implements it, and the extra of jaxlog that installs it.
_PACKAGES = {
    "abfs": ("adlfs", "abfs"),
    "abfss": ("adlfs", "abfs"),
    "az": ("adlfs", "abfs"),
    "gcs": ("gcsfs", "gcs"),
    "gs": ("gcsfs", "gcs"),
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
}


def open_filesystem(
    url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem behind `url`, and the path of `url` on it.

    Args:
        url: a local path or any fsspec URL.
        storage_options: passed to the filesystem unchanged.

    Raises:
        MissingDependencyError: the package for this protocol is not installed.
        LoggerError: no filesystem knows this protocol.

    Example:
        >>> filesystem, path = open_filesystem("memory://bucket/logs")
        >>> path
        '/bucket/logs'
    """
    from fsspec.core import url_to_fs  # noqa: PLC0415 - adds a tenth to the time of import jaxlog

    text = plain_url(url)
    try:
        return url_to_fs(text, **(storage_options or {}))
    except ImportError as error:
        package, extra = _PACKAGES.get(text.partition("://")[0].rpartition("::")[2], ("", ""))
        if not package:
            raise LoggerError(
                f"{safe_url(text)} needs a package that is not installed: {error}"
            ) from error
        raise MissingDependencyError.for_package(package, extra=extra) from error
    except ValueError as error:
        raise LoggerError(
            f"{safe_url(text)} is no path and no URL that fsspec knows "
            f"({Secrets(text, storage_options).hide(str(error))}); "
            f"pass a local path, or a URL such as s3://bucket/logs"
        ) from None


def is_local(filesystem: fsspec.AbstractFileSystem) -> bool:
    """Whether it is a local disk, where files can be appended to and created exclusively.

    Example:
        >>> is_local(open_filesystem("memory://logs")[0])
        False
    """
    from fsspec.implementations.local import LocalFileSystem  # noqa: PLC0415 - loaded by now

    return isinstance(filesystem, LocalFileSystem)


def is_in_memory(filesystem: fsspec.AbstractFileSystem) -> bool:
    """Whether its files exist in this process only.

    Example:
        >>> is_in_memory(open_filesystem("memory://logs")[0])
        True
    """
    from fsspec.implementations.memory import MemoryFileSystem  # noqa: PLC0415 - as above

    return isinstance(filesystem, MemoryFileSystem)


def plain_url(url: str | os.PathLike[str]) -> str:
    """`url` as a string; `~` and `$VARIABLES` of a local path are expanded.

    Example:
        >>> plain_url(Path("logs"))
        'logs'
    """
    text = os.fspath(url)
    return text if "://" in text or "::" in text else os.path.expandvars(Path(text).expanduser())


def join_url(url: str, *parts: str) -> str:
    """`url` with `parts` below it; empty parts are left out.

    Example:
        >>> join_url("s3://bucket/logs/", "run", "", "version_0")
        's3://bucket/logs/run/version_0'
    """
    for part in parts:
        if part:
            root = url if url.endswith("://") else url.rstrip("/")
            url = f"{root}{part}" if root.endswith("://") else f"{root}/{part}"
    return url


def parent_of(path: str) -> str:
    """The folder of `path`.

    Example:
        >>> parent_of("/bucket/logs/metrics.csv")
        '/bucket/logs'
    """
    return path.rpartition("/")[0]


def read_whole(filesystem: fsspec.AbstractFileSystem, path: str) -> bytes:
    """The content of the file at `path`.

    Raises:
        FileNotFoundError: the file does not exist.

    Example:
        >>> filesystem, path = open_filesystem("memory://read_whole/file")
        >>> write_whole(filesystem, path, b"abc")
        >>> read_whole(filesystem, path)
        b'abc'
    """
    content: Any = filesystem.cat_file(path)
    return content


def write_whole(filesystem: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    """Replaces the content of the file at `path`; readers see either the old or the new content.

    A local file is written under another name and then renamed. Remotely this is one `pipe_file`
    request; `open` would publish a partial file if an exception interrupts the write.

    Example:
        >>> filesystem, path = open_filesystem("memory://write_whole/hparams.yaml")
        >>> write_whole(filesystem, path, b"lr: 0.1")
        >>> filesystem.cat_file(path)
        b'lr: 0.1'
    """
    if is_local(filesystem):
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            aside.write_bytes(data)
            aside.replace(target)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
        return
    try:
        filesystem.pipe_file(path, data)
    except FileNotFoundError:
        protocols = filesystem.protocol
        if not _PACKAGES.keys().isdisjoint(
            [protocols] if isinstance(protocols, str) else protocols
        ):
            # An object store has no folders, so its bucket is missing. Do not create one: a typo
            # in the name is more likely.
            raise
        filesystem.makedirs(parent_of(path), exist_ok=True)  # sftp, hdfs and others have folders
        filesystem.pipe_file(path, data)


def append_whole(file: io.FileIO, data: bytes | bytearray) -> None:
    """Appends all of `data` to an unbuffered local `file`, or nothing if that fails.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryFile(buffering=0) as file:
        ...     append_whole(file, b"abc")
        ...     file.tell()
        3
    """
    size = file.seek(0, os.SEEK_END)
    done = 0
    try:
        # Usually one write. The kernel may take less, for example if the disk is nearly full.
        while done < len(data):
            with memoryview(data) as view, view[done:] as rest:
                done += file.write(rest) or 0
    except BaseException:
        # Readers stop at an incomplete record, so one in the middle would hide all later records.
        file.truncate(size)
        raise
