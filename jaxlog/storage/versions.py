"""`RunDirectory`: the directory of a run, named as in Lightning."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlog.errors import LoggerError, WriteError
from jaxlog.storage.filesystem import is_in_memory, is_local, join_url, open_filesystem, plain_url
from jaxlog.storage.secrets import Secrets, safe_url

__all__ = ["RunDirectory"]

_VERSION = re.compile(r"version_(\d+)")
_TAKING = threading.Lock()


class RunDirectory:
    """`save_dir/name/version/sub_dir`; the version is chosen once, at the first access.

    Args:
        save_dir: local path or URL.
        name: folder of the experiment; "" or None for `save_dir` itself.
        version: an int for `version_{n}`, a string unchanged, None for one more than the highest
            existing number.
        sub_dir: a folder below the version.
        storage_options: passed to the filesystem.

    Raises:
        LoggerError: the version has another type, or is negative.

    Example:
        >>> RunDirectory("memory://runs", "mnist", 3).log_dir
        'memory://runs/mnist/version_3'
        >>> RunDirectory("memory://runs", "", "sweep").log_dir
        'memory://runs/sweep'
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        name: str | None,
        version: int | str | None,
        sub_dir: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(version, bool) or not isinstance(version, int | str | None):
            raise LoggerError(
                f"version must be an int, a str or None, but got {version!r}; "
                f"write version=3 for version_3"
            )
        if isinstance(version, int) and version < 0:
            raise LoggerError(f"version must be at least 0, but got {version}")
        self.save_dir = plain_url(save_dir)
        self.name = name or ""
        self.sub_dir = sub_dir or ""
        self.storage_options = dict(storage_options or {})
        self._version = version

    @property
    def root_dir(self) -> str:
        """The directory of all versions: `save_dir/name`."""
        return join_url(self.save_dir, self.name)

    @property
    def version(self) -> int | str:
        """The version as given, or else the next free number, reserved by the first access."""
        with _TAKING:
            if self._version is None:
                self._version = _take_next(self.root_dir, self.storage_options)
            return self._version

    @property
    def log_dir(self) -> str:
        """The directory of this run's files."""
        version = self.version
        folder = f"version_{version}" if isinstance(version, int) else version
        return join_url(self.root_dir, folder, self.sub_dir)


def _take_next(root: str, storage_options: Mapping[str, Any]) -> int:
    """One more than the highest `version_{n}` in `root`; creates the folder where folders exist.

    Two loggers that start at the same time see the same listing. Creating a folder succeeds for one
    of them only, so that decides who gets the number. Object stores have no folders. There two runs
    may get the same version, but do not overwrite each other, because the names of event files have
    a random part.
    """
    filesystem, path = open_filesystem(root, storage_options)
    filesystem.invalidate_cache()
    try:
        number = 1 + max(_versions_in(filesystem, path), default=-1)
    except Exception as error:  # noqa: BLE001  each client has its own error classes
        raise _unlisted(root, storage_options, error)  # noqa: B904  sets __cause__ unless secret
    if not is_local(filesystem) and not is_in_memory(filesystem):
        return number
    while True:
        folder = f"{path}/version_{number}"
        try:
            if is_local(filesystem):
                Path(folder).mkdir(parents=True)
            else:
                filesystem.makedirs(folder)
        except FileExistsError:
            number += 1
        else:
            return number


def _unlisted(root: str, storage_options: Mapping[str, Any], error: Exception) -> WriteError:
    secrets = Secrets(root, storage_options)
    what = secrets.hide(f"{type(error).__name__}: {error}")
    found = WriteError(
        f"could not list {safe_url(root)} to find the next free version ({what}); check the place "
        f"and your credentials, or write version=0"
    )
    found.__cause__ = None if secrets.shown_by(error) else error
    return found


def _versions_in(filesystem: Any, path: str) -> list[int]:
    try:
        names = filesystem.ls(path, detail=False)
    except FileNotFoundError:
        return []
    matches = (_VERSION.fullmatch(str(name).rstrip("/").rpartition("/")[2]) for name in names)
    return [int(match[1]) for match in matches if match]
