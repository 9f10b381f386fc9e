"""`follow`: the scalars of live runs, while they are written."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from jaxlog.errors import ReadError
from jaxlog.reading.decoder import decode_scalars
from jaxlog.reading.record_parser import split_records
from jaxlog.reading.runs import RunFiles, find_runs, matches

__all__ = ["ScalarRow", "follow"]


class ScalarRow(NamedTuple):
    """One scalar as it was logged.

    Attributes:
        run: the run's path below the followed URL; "." for that URL itself.
        tag: the name of the scalar.
        step: the step it was logged at.
        wall_time: seconds since the epoch.
        value: its value.
    """

    run: str
    tag: str
    step: int
    wall_time: float
    value: float


def follow(
    url: str | os.PathLike[str],
    *,
    runs: str | Sequence[str] | None = None,
    tags: str | Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    poll_secs: float = 1.0,
    idle_secs: float | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[ScalarRow]:
    """Yields every scalar in event files, existing and new ones, in order of writing within a run.

    Runs and files that appear later are followed too; there may be none at the start. Only new
    bytes are fetched. A session that resumes logs some steps again; both scalars are yielded.

    Args:
        url: as for `read_scalars`, like `runs`, `tags` and `storage_options`.
        poll_secs: seconds between two polls.
        idle_secs: ends after so many seconds without a new scalar; None for no end.
        wait: called with `poll_secs` between two polls; `time.sleep` by default.

    Yields:
        One `(run, tag, step, wall_time, value)` per scalar.

    Warns:
        UserWarning: a file has a damaged record; the rest of the file is not read.

    Example:
        >>> from jaxlog.loggers import TensorBoardLogger
        >>> with TensorBoardLogger("memory://follow", "", 0) as logger:
        ...     logger.log_metrics({"loss": 0.5}, step=0)
        >>> for row in follow("memory://follow", idle_secs=0):
        ...     print(row.run, row.tag, row.step, row.value)
        version_0 loss 0 0.5
    """
    files: dict[tuple[str, str], _File] = {}
    idle = 0.0
    while True:
        fresh = False
        for run in _runs(url, storage_options):
            for path in run.files if matches(run.name, runs) else ():
                file = files.setdefault((run.name, path), _File(run, path))
                for row in file.new_rows(tags):
                    fresh = True
                    yield row
        idle = 0.0 if fresh else idle + poll_secs
        if idle_secs is not None and idle >= idle_secs:
            return
        wait(poll_secs)


def _runs(url: Any, storage_options: Any) -> list[RunFiles]:
    try:
        return find_runs(url, storage_options)
    except (FileNotFoundError, ReadError):  # the run has not written anything yet
        return []


@dataclass(slots=True)
class _File:
    run: RunFiles
    path: str
    position: int = 0  # offset of the first record that was not read
    damaged: bool = False
    names: dict[str, int] = field(default_factory=dict)

    def new_rows(self, wanted: str | Sequence[str] | None) -> Iterator[ScalarRow]:
        content = b"" if self.damaged else self._rest()
        if not content:
            return
        records = split_records(content)
        columns, _, bad = decode_scalars(content, records, self._code)
        damage = records.damage
        if bad is not None:
            columns, damage = columns.kept(columns.order < bad), records.offset(bad)
        if damage is not None:
            self.damaged = True
            warnings.warn(
                f"{self.path} is damaged at byte {self.position + damage}; the rest of this file "
                f"is not read",
                stacklevel=3,
            )
        self.position += records.end
        columns = columns.kept(np.argsort(columns.order, kind="stable"))
        tags = list(self.names)
        chosen = [matches(tag, wanted) for tag in tags]
        numbers = (columns.tags, columns.steps, columns.wall_times, columns.values)
        for code, *rest in zip(*(column.tolist() for column in numbers), strict=True):
            if chosen[code]:
                yield ScalarRow(self.run.name, tags[code], *rest)

    def _code(self, tag: str) -> int:
        return self.names.setdefault(tag, len(self.names))

    def _rest(self) -> bytes:
        filesystem: Any = self.run.filesystem
        try:
            if filesystem.size(self.path) <= self.position:
                return b""
            return filesystem.cat_file(self.path, start=self.position)
        except FileNotFoundError:  # removed after the listing
            return b""
