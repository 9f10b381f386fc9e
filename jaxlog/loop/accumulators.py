"""Epoch reductions on the host, in float64 and int64: sums first, one division last."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxlog.logs import Options
from jaxlog.metrics import Metric

__all__ = ["Accumulator"]


@dataclasses.dataclass
class Accumulator:
    """The reduction of one key over one epoch (and one loader).

    Attributes:
        options: how it reduces.
        numerator: sum of value times weight, or the sum, minimum or maximum.
        denominator: sum of the weights.
        metric: the merged state of a logged metric, 64-bit numpy leaves.
        is_empty: whether nothing was logged yet.
    """

    options: Options
    numerator: float = 0.0
    denominator: float = 0.0
    metric: Metric | None = None
    is_empty: bool = True

    def add_sums(self, numerator: float, denominator: float) -> None:
        """Adds to a mean what several steps logged: sums of value times weight, and of weights."""
        self.numerator += numerator
        self.denominator += denominator
        self.is_empty = False

    def add_value(self, value: float, weight: float) -> None:
        """Adds one value."""
        if self.options.reduce_fx == "mean":
            self.add_sums(value * weight if weight else 0.0, weight)
        else:
            self._reduce(value)

    def _reduce(self, value: float) -> None:
        if self.is_empty:
            self.numerator = value
        elif self.options.reduce_fx == "sum":
            self.numerator += value
        else:
            self.numerator = float(getattr(np, self.options.reduce_fx)([self.numerator, value]))
        self.is_empty = False

    def add_metric(self, metric: Metric) -> None:
        """Adds the state that a window accumulated."""
        self.metric = metric.to_host() if self.metric is None else self.metric.host_merge(metric)
        self.is_empty = False

    def compute(self) -> float:
        """The reduced value; NaN for a mean of weight 0."""
        if self.metric is not None:
            return self.metric.host_compute()
        if self.options.reduce_fx != "mean":
            return self.numerator
        return self.numerator / self.denominator if self.denominator else float("nan")
