"""What the tests of the loop share: a plain object as logger, scripted batches and steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

import jaxlog

Row = tuple[int, dict[str, float]]


class Rows:
    """A logger that is a plain object: it keeps what it was given."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.flushes = 0
        self.closes = 0

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.rows.append((step, dict(metrics)))

    def flush(self) -> None:
        self.flushes += 1

    def close(self) -> None:
        self.closes += 1

    def of(self, tag: str) -> list[tuple[int, float]]:
        """`(step, value)` of one tag, in the order written."""
        return [(step, row[tag]) for step, row in self.rows if tag in row]

    def events(self) -> list[tuple[str, int, float]]:
        """Every `(tag, step, value)`, sorted."""
        return sorted((tag, step, value) for step, row in self.rows for tag, value in row.items())


class Failing(Rows):
    """A logger whose storage is gone."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        raise OSError("disk full")


def loop_of(**options: Any) -> tuple[jaxlog.Loop, Rows]:
    """A loop without bar that writes every step, and its logger."""
    rows = Rows()
    return jaxlog.Loop(rows, **{"progress_bar": False, "log_every_n_steps": 1, **options}), rows


def batches(*values: float, sizes: Iterable[int] | None = None) -> list[np.ndarray]:
    """A batch per value, filled with it; of one row each unless `sizes` says otherwise."""
    each = [1] * len(values) if sizes is None else list(sizes)
    return [np.full(size, value, np.float32) for size, value in zip(each, values, strict=True)]


def logging_step(name: str, **options: Any) -> Any:
    """A step that logs the first element of its batch."""

    def step(batch: jax.Array) -> None:
        jaxlog.log(name, batch[0], **options)

    return step
