"""Metrics that count into buckets, as histograms for the loggers that have a place for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxlog.metrics import Metric

__all__ = ["BucketRow", "bucket_rows"]


class BucketRow(NamedTuple):
    """The buckets of one metric at one step.

    Attributes:
        tag: the name.
        step: the x value.
        edges: float64, shape `(n,)`, increasing.
        counts: int64, shape `(n + 1,)`: below the first edge, between edges, above the last.
    """

    tag: str
    step: int
    edges: np.ndarray
    counts: np.ndarray

    def write(self, logger: Any) -> None:
        """Hands it to a logger; a plain object need not take it."""
        if hasattr(logger, "log_histogram"):
            logger.log_histogram(self.tag, self.counts, self.step, edges=self.edges)


def bucket_rows(tag: str, step: int, state: Metric | None) -> Iterator[BucketRow]:
    """The row of a metric that has `buckets()` and has counted anything; else nothing.

    Args:
        tag: what it is called.
        step: the x value.
        state: what was merged, on the host.
    """
    buckets = getattr(state, "buckets", None)
    if buckets is None:
        return
    edges, counts = (np.asarray(part) for part in buckets())
    if counts.any():
        yield BucketRow(tag, step, edges.astype(np.float64), counts.astype(np.int64))
