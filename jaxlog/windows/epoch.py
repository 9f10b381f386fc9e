"""Reductions over an epoch on the host, in float64 and int64: sums first, one division last."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxlog.logs import REDUCTIONS, Options
from jaxlog.metrics import Metric
from jaxlog.windows.decode import Decoded, GroupCalls
from jaxlog.windows.key import Key
from jaxlog.windows.logger_call import LoggerCall, histogram_calls

__all__ = ["Accumulator", "EpochReductions"]


@dataclasses.dataclass
class Accumulator:
    """The reduction of one key over one epoch.

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
        # One division, at the end: means of windows would weigh a short window like a full one.
        self.numerator += numerator
        self.denominator += denominator
        self.is_empty = False

    def add_value(self, value: float, weight: float) -> None:
        """Adds one value."""
        reduction = REDUCTIONS[self.options.reduce_fx]
        if reduction.weighted:
            self.add_sums(value * weight if weight else 0.0, weight)
            return
        self.numerator = value if self.is_empty else float(reduction.ufunc(self.numerator, value))
        self.is_empty = False

    def add_metric(self, metric: Metric) -> None:
        """Adds the state that a window accumulated."""
        self.metric = metric.to_host() if self.metric is None else self.metric.host_merge(metric)
        self.is_empty = False

    def compute(self) -> float:
        """The reduced value; NaN for a mean of weight 0."""
        if self.metric is not None:
            return self.metric.host_compute()
        if not REDUCTIONS[self.options.reduce_fx].weighted:
            return self.numerator
        return self.numerator / self.denominator if self.denominator else float("nan")


class EpochReductions:
    """The reductions of every key that a phase has logged, in the order they first came."""

    def __init__(self) -> None:
        """Nothing yet."""
        # By what tells keys apart: the hash of a Key goes over all its options, at every window.
        self._found: dict[tuple[str, str, str | None], tuple[Key, Accumulator]] = {}

    def of(self, key: Key) -> Accumulator:
        """The reduction of one key, made when first asked for."""
        found = self._found.get((key.name, key.loader, key.lane))
        if found is None:
            found = key, Accumulator(key.options)
            self._found[key.name, key.loader, key.lane] = found
        return found[1]

    def items(self) -> Iterator[tuple[Key, Accumulator]]:
        """Every key and its reduction."""
        yield from self._found.values()

    def put(self, key: Key, accumulator: Accumulator) -> None:
        """Sets the reduction of a key, from a saved state."""
        self._found[key.name, key.loader, key.lane] = key, accumulator

    def add(self, decoded: Decoded) -> None:
        """Adds what the calls of a step function logged and the policy for non-finite kept."""
        keys = decoded.table.columns.keys
        for key in keys:  # in this order they are in the epoch's row
            if key.options.on_epoch:
                self.of(key)
        for calls in decoded.groups:
            if calls.group.first.options.on_epoch:
                # A key that no call logged stays empty; a sum would otherwise become 0.
                here = np.any(decoded.table.present[:, calls.group.at], axis=0).tolist()
                places = calls.group.places.tolist()
                found = [
                    self.of(keys[i]) if has else None for i, has in zip(places, here, strict=True)
                ]
                _add_group(calls, decoded, found)

    def add_value(self, key: Key, value: Any, weight: float) -> None:
        """Adds one value that the host logged: a number or a `Metric`."""
        accumulator = self.of(key)
        if isinstance(value, Metric):
            accumulator.add_metric(value)
        else:
            accumulator.add_value(value, weight)

    def values(self) -> list[tuple[Key, float]]:
        """Every key with an epoch value, and the value."""
        return [
            (key, one.compute())
            for key, one in self.items()
            if key.options.on_epoch and not one.is_empty
        ]

    def logger_calls(self, step: int) -> list[LoggerCall]:
        """The histograms of metrics that count into buckets, for the loggers."""
        return [
            call
            for key, one in self.items()
            if key.options.on_epoch and key.options.logger
            for call in histogram_calls(key, key.epoch_label, step, one.metric)
        ]


def _add_group(calls: GroupCalls, decoded: Decoded, found: Sequence[Accumulator | None]) -> None:
    """Adds what one layout group logged to the reductions of its keys; None logged nothing."""
    options = calls.group.first.options
    if calls.group.first.metric is not None:
        for spec, one in zip(calls.group.specs, found, strict=True):
            if one is not None:
                one.add_metric(calls.states[spec.name])
        return
    kept = decoded.table.present[:, calls.group.at]
    reduction = REDUCTIONS[options.reduce_fx]
    if reduction.weighted:
        numerators, denominators = (
            np.where(kept, part, 0.0).sum(axis=0).tolist()
            for part in calls.column.means(decoded.sizes)
        )
        for one, *sums in zip(found, numerators, denominators, strict=True):
            if one is not None:
                one.add_sums(*sums)
        return
    values = np.where(kept, decoded.table.values[:, calls.group.at], reduction.limit)
    for one, value in zip(found, reduction.fold(values, axis=0).tolist(), strict=True):
        if one is not None:
            one.add_value(value, 1.0)
