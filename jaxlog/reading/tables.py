"""Decoded runs as one table of pandas, polars or numpy."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxlog.errors import MissingDependencyError
from jaxlog.reading.columns import Columns

__all__ = ["BACKENDS", "Table", "as_backend", "require_backend"]

BACKENDS = ("pandas", "polars", "numpy")


@dataclass(frozen=True, slots=True)
class Table:
    """The scalars of one run, sorted.

    Attributes:
        run: its name.
        tags: the tags there are.
        tag: int64 [n], which of them each scalar has.
        columns: the scalars.
    """

    run: str
    tags: list[str]
    tag: np.ndarray
    columns: Columns


def require_backend(backend: str) -> None:
    """Imports what `backend` needs.

    Raises:
        MissingDependencyError: it is not installed.

    Example:
        >>> require_backend("numpy")
    """
    try:
        importlib.import_module(backend)
    except ImportError as error:
        raise MissingDependencyError.for_package(backend, extra=backend) from error


def as_backend(tables: Sequence[Table], backend: str) -> Any:
    """The rows of all `tables`, in order, as one table of `backend`.

    Example:
        >>> list(as_backend([], "numpy"))
        ['run', 'tag', 'step', 'wall_time', 'value']
    """
    all_columns = Columns.joined([table.columns for table in tables])
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
    numbers = {
        "step": all_columns.steps,
        "wall_time": all_columns.wall_times,
        "value": all_columns.values,
    }
    return _MAKERS[backend](names, numbers)


def _pandas(names: Any, numbers: dict[str, np.ndarray]) -> Any:
    import pandas as pd  # noqa: PLC0415

    text = {
        name: pd.Series(values, dtype="str").take(codes).array
        for name, (values, codes) in names.items()
    }
    return pd.DataFrame({**text, **numbers})


def _polars(names: Any, numbers: dict[str, np.ndarray]) -> Any:
    import polars as pl  # noqa: PLC0415

    text = {
        name: pl.Series(values, dtype=pl.String).gather(codes)
        for name, (values, codes) in names.items()
    }
    return pl.DataFrame({**text, **numbers})


def _numpy(names: Any, numbers: dict[str, np.ndarray]) -> Any:
    text = {
        name: np.array([*values, ""], object)[codes].astype(object)
        for name, (values, codes) in names.items()
    }
    return {**text, **numbers}


_MAKERS = {"pandas": _pandas, "polars": _polars, "numpy": _numpy}
