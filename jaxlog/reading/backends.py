"""Decoded runs as one table of pandas, polars or numpy.

`run` and `tag` come as codes into a list of names, so that a backend builds its string columns from
a few names instead of one Python string a row.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from jaxlog.errors import MissingDependencyError, ReadError
from jaxlog.reading.decoder import ScalarColumns

__all__ = ["BACKENDS", "Backend", "RunScalars", "as_backend", "require_backend"]

Backend: TypeAlias = Literal["pandas", "polars", "numpy"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


@dataclass(frozen=True, slots=True)
class RunScalars:
    """The scalars of one run, sorted by tag and then in the order of writing.

    Attributes:
        run: the run's name.
        tags: the names of its tags.
        tag: int64 [n], the index in `tags` of each scalar's tag.
        columns: the scalars.
    """

    run: str
    tags: list[str]
    tag: np.ndarray
    columns: ScalarColumns


def require_backend(backend: Backend) -> None:
    """Imports the package of `backend`, so that a missing one is an error before files are read.

    Raises:
        MissingDependencyError: it is not installed.

    Example:
        >>> require_backend("numpy")
    """
    try:
        importlib.import_module(backend)
    except ImportError as error:
        raise MissingDependencyError.for_package(backend, extra=backend) from error


def as_backend(tables: Sequence[RunScalars], backend: Backend, *, pivot: bool = False) -> Any:
    """The rows of all `tables` in order, as one table of `backend`.

    Example:
        >>> list(as_backend([], "numpy"))
        ['run', 'tag', 'step', 'wall_time', 'value']
    """
    all_columns = ScalarColumns.joined([table.columns for table in tables])
    runs = [table.run for table in tables]
    tags = sorted({tag for table in tables for tag in table.tags})
    rank = {tag: number for number, tag in enumerate(tags)}
    run_codes = np.repeat(np.arange(len(tables)), [len(table.tag) for table in tables])
    tag_codes = [
        np.array([rank[tag] for tag in table.tags], np.int64)[table.tag] for table in tables
    ]
    names = {
        "run": (runs, run_codes),
        "tag": (tags, np.concatenate([np.empty(0, np.int64), *tag_codes])),
    }
    if pivot:
        codes = run_codes, names["tag"][1]
        names, numbers = _pivoted(runs, tags, codes, all_columns)
        return _MAKERS[backend](names, numbers)
    numbers = {
        "step": all_columns.steps,
        "wall_time": all_columns.wall_times,
        "value": all_columns.values,
    }
    return _MAKERS[backend](names, numbers)


def _pivoted(runs: Any, tags: list[str], codes: Any, columns: ScalarColumns) -> Any:
    """The columns of a table with one row per run and step, and one column per tag."""
    used, tag_codes = np.unique(codes[1], return_inverse=True)
    tags = [tags[code] for code in used.tolist()]
    taken = {"run", "step"}.intersection(tags)
    if taken:
        raise ReadError(
            f"pivot=True has no column for the tag {min(taken)!r}, which names the run or the "
            f"step of a row; leave it out by tags=..., or read without pivot"
        )
    run_codes = codes[0]
    order = np.lexsort((columns.steps, run_codes))
    run, step = run_codes[order], columns.steps[order]
    first = np.ones(len(order), bool)
    first[1:] = (run[1:] != run[:-1]) | (step[1:] != step[:-1])
    row = np.empty(len(order), np.int64)
    row[order] = np.cumsum(first) - 1
    values = np.zeros((int(first.sum()), len(tags)))
    there = np.zeros(values.shape, bool)
    # The columns are in the order of writing, and numpy keeps the last of repeated assignments.
    values[row, tag_codes] = columns.values
    there[row, tag_codes] = True
    cells = np.ma.masked_array(values, ~there)
    return {"run": (runs, run[first])}, {
        "step": step[first],
        **{tag: cells[:, number] for number, tag in enumerate(tags)},
    }


def _filled(numbers: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        name: np.ma.filled(column, np.nan) if np.ma.isMaskedArray(column) else column
        for name, column in numbers.items()
    }


def _pandas(names: Any, numbers: dict[str, np.ndarray]) -> Any:
    import pandas as pd  # noqa: PLC0415

    text = {
        name: pd.Series(values, dtype="str").take(codes).array
        for name, (values, codes) in names.items()
    }
    return pd.DataFrame({**text, **_filled(numbers)})


def _polars(names: Any, numbers: dict[str, np.ndarray]) -> Any:
    import polars as pl  # noqa: PLC0415

    text = {
        name: pl.Series(values, dtype=pl.String).gather(codes)
        for name, (values, codes) in names.items()
    }
    columns: dict[str, Any] = {}
    for name, column in numbers.items():
        columns[name] = pl.Series(np.ma.getdata(column))
        if np.ma.isMaskedArray(column):
            here = pl.Series(~np.ma.getmaskarray(column))
            columns[name] = pl.select(pl.when(here).then(columns[name])).to_series()
    return pl.DataFrame({**text, **columns})


def _numpy(names: Any, numbers: dict[str, np.ndarray]) -> Any:
    text = {
        name: np.array([*values, ""], object)[codes].astype(object)
        for name, (values, codes) in names.items()
    }
    return {**text, **_filled(numbers)}


_MAKERS = {"pandas": _pandas, "polars": _polars, "numpy": _numpy}
