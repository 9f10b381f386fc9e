"""`read_scalars`: everything that was logged, as a tidy table."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from jaxlog.errors import ReadError
from jaxlog.reading.backends import BACKENDS, Backend, RunScalars, as_backend, require_backend
from jaxlog.reading.decoder import ScalarColumns, decode_scalars
from jaxlog.reading.record_parser import split_records
from jaxlog.reading.runs import RunFiles, find_runs, matches
from jaxlog.storage import read_whole, safe_url

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

__all__ = ["read_scalars"]


@overload
def read_scalars(
    url: str | os.PathLike[str],
    *,
    runs: str | Sequence[str] | None = None,
    tags: str | Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    backend: Literal["pandas"] = "pandas",
    pivot: bool = False,
) -> pd.DataFrame: ...
@overload
def read_scalars(
    url: str | os.PathLike[str],
    *,
    runs: str | Sequence[str] | None = None,
    tags: str | Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    backend: Literal["polars"],
    pivot: bool = False,
) -> pl.DataFrame: ...
@overload
def read_scalars(
    url: str | os.PathLike[str],
    *,
    runs: str | Sequence[str] | None = None,
    tags: str | Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    backend: Literal["numpy"],
    pivot: bool = False,
) -> dict[str, np.ndarray]: ...
def read_scalars(
    url: str | os.PathLike[str],
    *,
    runs: str | Sequence[str] | None = None,
    tags: str | Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    backend: Backend = "pandas",
    pivot: bool = False,
) -> pd.DataFrame | pl.DataFrame | dict[str, np.ndarray]:
    """All scalars in event files as a table: run, tag, step, wall_time, value.

    Rows are sorted by run, then by tag, then in the order of writing. Points that a resumed session
    has replaced are left out, as in TensorBoard. An incomplete record at the end of a file is
    ignored, because it may be being written.

    Args:
        url: a run's directory, a tree of runs, or one event file; local or any fsspec URL. The
            files may come from jaxlog or any other writer.
        runs: names or shell patterns of runs; None for all. The name of a run is its path below
            `url`, or "." for `url` itself.
        tags: names or shell patterns of tags; None for all.
        storage_options: passed to the filesystem, such as credentials.
        backend: "pandas", "polars", or "numpy" for a dict of arrays.
        pivot: whether to return one row per run and step with one column per tag instead. A tag
            without a value is NaN (null in polars); of several values, the last counts.

    Returns:
        A DataFrame of the backend: `run` and `tag` are strings, `step` is int64, `wall_time`
        float64 (seconds since the epoch), `value` float64. With `pivot`: `run`, `step`, and each
        tag as float64. For "numpy" a dict of such columns.

    Raises:
        ReadError: there is no event file, no such run or no such backend; or, with `pivot`, a tag
            is named `run` or `step`.
        MissingDependencyError: the backend is not installed.

    Warns:
        UserWarning: a file has a damaged record; the rest of the file is not read.

    Example:
        >>> from jaxlog.loggers import TensorBoardLogger
        >>> with TensorBoardLogger("memory://read_scalars", "mnist", 0) as logger:
        ...     logger.log_metrics({"loss": 0.5}, step=0)
        ...     logger.log_metrics({"loss": 0.25}, step=1)
        >>> read_scalars("memory://read_scalars")[["run", "tag", "step", "value"]]
                       run   tag  step  value
        0  mnist/version_0  loss     0   0.50
        1  mnist/version_0  loss     1   0.25
        >>> read_scalars("memory://read_scalars", pivot=True)
                       run  step  loss
        0  mnist/version_0     0  0.50
        1  mnist/version_0     1  0.25
    """
    if backend not in BACKENDS:
        raise ReadError(f"backend must be one of {', '.join(BACKENDS)}, but got {backend!r}")
    require_backend(backend)
    all_runs = find_runs(url, storage_options)
    chosen = [run for run in all_runs if matches(run.name, runs)]
    if not chosen:
        names = ", ".join(run.name for run in all_runs)
        raise ReadError(
            f"no run below {safe_url(os.fspath(url))} is named {runs!r}; there are {names}"
        )
    return as_backend([_read(run, tags) for run in chosen], backend, pivot=pivot)


def _read(run: RunFiles, wanted: str | Sequence[str] | None) -> RunScalars:
    codes: dict[str, int] = {}

    def code(tag: str) -> int:
        if tag not in codes:
            # Negative codes are tags that the caller does not want; matched once per tag.
            codes[tag] = len(codes) if matches(tag, wanted) else -1 - len(codes)
        return codes[tag]

    columns = _purged(_decoded(run, code))
    names = {number: tag for tag, number in codes.items()}
    ranks = {tag: rank for rank, tag in enumerate(sorted(codes))}
    rank = np.array([ranks[names[n]] if n in names else 0 for n in range(len(codes))], np.int64)
    tag_rank = rank[columns.tags]
    order = np.lexsort((np.arange(len(tag_rank)), columns.order, tag_rank))
    columns = columns.kept(order)
    return RunScalars(run.name, sorted(codes), tag_rank[order], columns)


def _decoded(run: RunFiles, code: Any) -> tuple[ScalarColumns, list[tuple[int, int]]]:
    """The scalars of a run's files and the starts of its sessions.

    Records are numbered across all files of the run, so that `_purged` can compare their order.
    """
    parts, starts, before = [], [], 0
    for path in run.files:
        content = read_whole(run.filesystem, path)
        records = split_records(content)
        columns, found, bad = decode_scalars(content, records, code)
        damage = records.damage
        if bad is not None:
            damage = records.offset(bad)
            columns = columns.kept(columns.order < bad)
            found = [start for start in found if start[0] < bad]
        if damage is not None:
            warnings.warn(
                f"{path} is damaged at byte {damage}; the rest of this file is not read",
                stacklevel=4,  # the caller of read_scalars
            )
        columns.order += before
        parts.append(columns)
        starts.extend((before + record, step) for record, step in found)
        before += len(records.starts)
    return ScalarColumns.joined(parts), starts


def _purged(read: tuple[ScalarColumns, list[tuple[int, int]]]) -> ScalarColumns:
    """Removes the scalars whose step a later session has reached again by its start."""
    columns, starts = read
    keep = np.ones(len(columns.steps), bool)
    for record, step in starts:
        keep &= (columns.order > record) | (columns.steps < step)
    return columns if keep.all() else columns.kept(keep)
