"""`find_runs`: the event files below a URL by run, with the names that TensorBoard shows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from jaxlog.errors import ReadError
from jaxlog.storage import open_filesystem, parent_of, safe_url

if TYPE_CHECKING:
    import fsspec

__all__ = ["RunFiles", "find_runs", "matches"]


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The event files of one directory.

    Attributes:
        name: the path of the directory below the given URL; "." for that URL itself.
        files: paths of the event files, in the order of writing.
        filesystem: the filesystem of the paths.
    """

    name: str
    files: tuple[str, ...]
    filesystem: fsspec.AbstractFileSystem


def find_runs(
    url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> list[RunFiles]:
    """The runs at or below `url`, sorted by name; `url` may also be one event file.

    Raises:
        ReadError: there is no event file at or below `url`.

    Example:
        >>> from jaxlog.loggers import TensorBoardLogger
        >>> with TensorBoardLogger("memory://find_runs", "mnist", 0) as logger:
        ...     logger.log_metrics({"loss": 0.5}, step=0)
        >>> [run.name for run in find_runs("memory://find_runs")]
        ['mnist/version_0']
    """
    filesystem, path = open_filesystem(url, storage_options)
    filesystem.invalidate_cache()  # a cached listing lacks files of later flushes
    root = path.rstrip("/")
    found = [str(name) for name in filesystem.find(path)]
    files = sorted(name for name in found if "tfevents" in name.rpartition("/")[2])
    if not files:
        raise ReadError(
            f"no event file at or below {safe_url(os.fspath(url))}: {len(found)} files there, and "
            f"none has 'tfevents' in its name; pass the save_dir or log_dir of a "
            f"TensorBoardLogger, after its flush() or close()"
        )
    folders: dict[str, list[str]] = {}
    for name in files:
        inside = "." if name == root else parent_of(name).removeprefix(root).strip("/") or "."
        folders.setdefault(inside, []).append(name)
    return [RunFiles(name, tuple(folders[name]), filesystem) for name in sorted(folders)]


def matches(name: str, wanted: str | Sequence[str] | None) -> bool:
    """Whether `name` is one of `wanted` or matches a shell pattern in it; None matches all.

    Example:
        >>> matches("train/loss", "train/*"), matches("loss", ["accuracy"]), matches("loss", None)
        (True, False, True)
    """
    if wanted is None:
        return True
    patterns = [wanted] if isinstance(wanted, str) else wanted
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)
